"""The claim on one job: renewed from a thread of its own, trusted no longer than the monotonic clock allows."""

from __future__ import annotations

import threading
import time
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store import leases
from store.errors import LeaseLost
from store.leases import Claim
from store.session import Database
from store.settings import Settings

MARGIN = 1 / 6
"""Share of the lease given up for killing the child in time: 10 of 60 s."""
RETRY = 1 / 5
"""A failed heartbeat is repeated after this share of the interval."""

log = structlog.get_logger()


class Lease:
    """Held, lost to another epoch, or expired because no renewal was confirmed in time."""

    def __init__(
        self, database: Database, claim: Claim, settings: Settings, *, claimed_at: float
    ) -> None:
        self._database = database
        self._claim = claim
        self._seconds = settings.lease_seconds
        self._interval = settings.heartbeat_seconds
        self._valid_until = claimed_at + self._seconds * (1 - MARGIN)
        self._closed = threading.Event()
        self._lost = threading.Event()
        self._cancel = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {claim.job_id}")

    @property
    def lost(self) -> bool:
        """Another epoch owns the job: nothing that this attempt does counts any more."""
        return self._lost.is_set()

    @property
    def expired(self) -> bool:
        """No renewal was confirmed for so long that another worker may soon start."""
        return time.monotonic() >= self._valid_until

    @property
    def held(self) -> bool:
        """Neither lost nor expired."""
        return not self.lost and not self.expired

    @property
    def cancel_requested(self) -> bool:
        """The user wants the job to end."""
        return self._cancel.is_set()

    def lose(self) -> None:
        """Note that a fenced write found the lease lost."""
        self._lost.set()

    def _beat(self) -> None:
        pause = self._interval
        while not self._closed.wait(pause) and not self.lost:
            pause = self._interval if self._renew() else self._interval * RETRY

    def _renew(self) -> bool:
        sent = time.monotonic()
        try:
            with self._database.write() as session:
                signals = leases.heartbeat(
                    session, self._claim.job_id, self._claim.epoch, lease_seconds=self._seconds
                )
        except LeaseLost:
            self.lose()
            return False
        except SQLAlchemyError as error:
            log.warning("heartbeat.failed", job_id=self._claim.job_id, error=type(error).__name__)
            return False
        self._valid_until = sent + self._seconds * (1 - MARGIN)
        if signals.cancel:
            self._cancel.set()
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
