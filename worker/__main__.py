"""`python -m worker`: claims jobs and prunes until SIGTERM; with a broker it also answers doorbells."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

import structlog

from store import logs
from store.session import Database
from store.settings import PRIVATE, Settings
from worker.doorbell import DoorbellListener
from worker.reconcile import Reconciler
from worker.slots import Slots
from worker.supervise import RUNNER, Supervisor

log = structlog.get_logger()


def run(settings: Settings, *, command: Sequence[str] = RUNNER) -> None:
    """Claim and run jobs until SIGTERM or SIGINT; `command` starts the child."""
    os.umask(PRIVATE)
    database = Database(settings.database_url)
    slots = Slots(database, settings, Supervisor(database, settings, command=command))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: slots.drain())
    slots.start()
    log.info("worker.started", slots=settings.worker_slots, broker=settings.broker_url is not None)
    if settings.broker_url is None:
        _reconcile_here(database, settings, slots)
    else:
        listener = DoorbellListener(settings, wake=slots.wake)
        listener.start()
        slots.join()
        listener.stop()
    database.dispose()
    log.info("worker.stopped")


def _reconcile_here(database: Database, settings: Settings, slots: Slots) -> None:
    """Do without a broker: rescue in this process, and wake the slots instead of ringing."""
    reconciler = Reconciler(database, settings, ring=lambda _job_id: slots.wake())
    rounds = threading.Thread(target=reconciler.run, name="reconciler")
    rounds.start()
    slots.join()
    reconciler.stop()
    rounds.join()


if __name__ == "__main__":
    logs.configure(sys.stderr.fileno(), libraries=logging.WARNING)
    run(Settings())
