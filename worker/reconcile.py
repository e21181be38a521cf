"""Queues again what silent workers held, and rings for what waits; any number of copies may run.

`python -m worker.reconcile` is the process of its own that a deployment with a broker runs.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store import leases, logs
from store.broker import Doorbell
from store.session import Database
from store.settings import Settings

MAX_BELLS = 20
"""Per round: every bell wakes all slots, and a slot goes on until the queue is empty."""

log = structlog.get_logger()


class Reconciler:
    """One round every `reconcile_seconds`, until stopped."""

    def __init__(
        self, database: Database, settings: Settings, *, ring: Callable[[str], None]
    ) -> None:
        self._database = database
        self._settings = settings
        self._ring = ring
        self._stopped = threading.Event()

    def run(self) -> None:
        """Work until `stop`."""
        while not self._stopped.is_set():
            self.round()
            self._stopped.wait(self._settings.reconcile_seconds)

    def stop(self) -> None:
        """End after the current round."""
        self._stopped.set()

    def round(self) -> None:
        """Rescue, then ring; a database that is away is asked again next time."""
        try:
            with self._database.write() as session:
                rescued = leases.rescue(session, max_crashes=self._settings.max_crashes)
            with self._database.write() as session:
                waiting = leases.to_ring(session, limit=MAX_BELLS)
        except SQLAlchemyError as error:
            log.warning("reconcile.failed", error=type(error).__name__)
            return
        for job_id in rescued:
            log.info("job.rescued", job_id=job_id)
        for job_id in waiting:
            self._ring(job_id)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logs.configure(sys.stderr.fileno(), libraries=logging.WARNING)
    settings = Settings()
    database, doorbell = Database(settings.database_url), Doorbell(settings)
    reconciler = Reconciler(database, settings, ring=doorbell.ring)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reconciler.stop())
    log.info("reconciler.started")
    reconciler.run()
    doorbell.close()
    database.dispose()


if __name__ == "__main__":
    main()
