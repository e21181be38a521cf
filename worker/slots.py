"""Threads that claim jobs and see them through, one each; a doorbell or a poll wakes them."""

from __future__ import annotations

import os
import socket
import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store import leases
from store.leases import Claim
from store.session import Database
from store.settings import Settings
from worker.supervise import Supervisor

log = structlog.get_logger()


class Slots:
    """As many jobs at a time as `worker_slots`; each slot claims until the queue is empty before it sleeps."""

    def __init__(self, database: Database, settings: Settings, supervisor: Supervisor) -> None:
        self._database = database
        self._settings = settings
        self._supervisor = supervisor
        self.draining = threading.Event()
        self._bell = threading.Condition()
        self._rings = 0
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"slot {number}")
            for number in range(settings.worker_slots)
        ]

    def start(self) -> None:
        """Begin to claim."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look for work now rather than at the next poll."""
        with self._bell:
            self._rings += 1
            self._bell.notify_all()

    def drain(self) -> None:
        """Claim nothing more; attempts stop after their current block and give their job back."""
        self.draining.set()
        self.wake()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the slots to end; tell whether they did."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if deadline is None else max(0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, number: int) -> None:
        owner = f"{socket.gethostname()}:{os.getpid()}:{number}"
        while not self.draining.is_set():
            rings = self._rings
            if self._take_one(owner):
                continue
            if number == 0:
                self._supervisor.sweep()
            self._sleep(rings)

    def _sleep(self, rings: int) -> None:
        """Sleep until the next poll, or not at all if the bell rang since `rings` was read."""
        with self._bell:
            self._bell.wait_for(
                lambda: self._rings != rings or self.draining.is_set(),
                timeout=self._settings.poll_seconds,
            )

    def _take_one(self, owner: str) -> bool:
        claimed_at = time.monotonic()
        try:
            claim = self._claim(owner)
        except SQLAlchemyError as error:
            log.warning("claim.failed", error=type(error).__name__)
            return False
        if claim is None:
            return False
        try:
            self._supervisor.run(claim, claimed_at=claimed_at, drain=self.draining)
        except Exception:
            log.exception("attempt.abandoned", job_id=claim.job_id, epoch=claim.epoch)
        return True

    def _claim(self, owner: str) -> Claim | None:
        with self._database.write() as session:
            return leases.claim(session, owner=owner, lease_seconds=self._settings.lease_seconds)
