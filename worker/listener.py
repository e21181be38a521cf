"""Hears what the child says and writes it down under the attempt's epoch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pruning_core.spec.progress import Progress
from store import leases
from store.errors import LeaseLost
from store.leases import Claim
from store.session import Database
from worker.lease import Lease
from worker.persist import GaveUp, persist
from worker.protocol import Failed, Progressed, Resolved, Succeeded, decode

MAX_LINE_BYTES = 64 * 2**20
EVENT_SECONDS = 5.0
"""Least time between two events that tell of nothing but progress."""

log = structlog.get_logger()


class Listener:
    """A thread that reads lines until the last writer of the pipe is gone.

    It writes to the database itself: while that is away, the pipe fills and the child waits.
    """

    def __init__(self, stdout: IO[bytes], database: Database, claim: Claim, lease: Lease) -> None:
        self._stdout = stdout
        self._database = database
        self._claim = claim
        self._lease = lease
        self.heard_at = self._event_at = time.monotonic()
        self.progress: Progress | None = None
        self.verdict: Succeeded | Failed | None = None
        self._thread = threading.Thread(target=self._listen, name=f"listener {claim.job_id}")
        self._thread.start()

    def join(self) -> None:
        """Wait until everything that was said is written down, or was not worth it any more."""
        self._thread.join()

    def _listen(self) -> None:
        for line in iter(lambda: self._stdout.readline(MAX_LINE_BYTES), b""):
            self._hear(line)

    def _hear(self, line: bytes) -> None:
        message = decode(line)
        if message is None:
            log.warning("child.garbage", job_id=self._claim.job_id, bytes=len(line))
            return
        self.heard_at = time.monotonic()
        if isinstance(message, Progressed):
            self.progress = message.progress
            self.record(message.progress)
        elif isinstance(message, Resolved):
            self._write(
                lambda session: leases.record_resolved(
                    session, self._claim.job_id, self._claim.epoch, message.resolved
                )
            )
        else:
            self.verdict = message

    def record(self, progress: Progress) -> None:
        """Store one step; every few seconds as an event too."""
        now = time.monotonic()
        in_event = now - self._event_at >= EVENT_SECONDS
        if in_event or progress.block is not None:
            self._event_at = now
        self._write(
            lambda session: leases.record_progress(
                session, self._claim.job_id, self._claim.epoch, progress, in_event=in_event
            )
        )

    def _write(self, write: Callable[[Session], None]) -> None:
        """Write while the lease holds; a step that cannot be written never ends the job."""
        if self._lease.lost:
            return
        try:
            persist(self._database, write, worth_trying=lambda: self._lease.held)
        except LeaseLost:
            self._lease.lose()
        except (GaveUp, SQLAlchemyError) as error:
            log.warning("progress.dropped", job_id=self._claim.job_id, error=type(error).__name__)
