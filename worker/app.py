"""The Celery side of a worker: a doorbell that wakes the slots, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from celery import Celery, signals

from store.broker import TICK, celery_app
from store.settings import Settings

RESTART_SECONDS = 1.0

log = structlog.get_logger()


def doorbell_app(settings: Settings, *, wake: Callable[[], None]) -> Celery:
    """Return the Celery app whose one task calls `wake`, whatever a message says."""
    app = celery_app(settings)
    app.conf.update(worker_hijack_root_logger=False, worker_redirect_stdouts=False)

    @app.task(name=TICK)
    def tick(*_args: object, **_kwargs: object) -> None:
        wake()

    return app


def serve(app: Celery, *, drain: Callable[[], None], draining: threading.Event) -> None:
    """Answer doorbells until SIGTERM or SIGINT, which call `drain` at once and so set `draining`.

    A broker that is away, at the start or later, is tried again for ever; the slots poll meanwhile.
    A message that is not even JSON breaks Celery's consumer: it is begun anew.
    """

    def shutting_down(**_: object) -> None:
        drain()

    def connected(**_: object) -> None:
        log.info("doorbell.connected")

    signals.worker_shutting_down.connect(shutting_down)
    signals.worker_ready.connect(connected)
    while not draining.is_set():
        worker = app.Worker(
            quiet=True, without_gossip=True, without_mingle=True, without_heartbeat=True
        )
        worker.start()
        if not worker.exitcode:
            return
        log.warning("doorbell.broken", exit_code=worker.exitcode)
        draining.wait(RESTART_SECONDS)
