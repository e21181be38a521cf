"""The doorbell: a Celery message that says "look at the jobs table", and may be lost without harm."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import Any, Final

import structlog
from celery import Celery

from store.settings import Settings

TICK: Final = "secateur.tick"
_BELLS = 1000
_log = structlog.get_logger(__name__)


def celery_app(settings: Settings, *, socket_timeout: float = 5) -> Celery:
    """Return a Celery app that never pickles, never keeps results, never redelivers and never blocks for long."""
    app = Celery("secateur", broker=settings.broker_url)
    app.conf.update(_SETTINGS)
    app.conf.broker_transport_options = _transport(settings, socket_timeout)
    return app


def _transport(settings: Settings, socket_timeout: float) -> dict[str, Any]:
    return {
        "visibility_timeout": 300,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": min(2, socket_timeout),
        "socket_keepalive": True,
        "health_check_interval": 10,
        "global_keyprefix": f"secateur:{settings.environment}:",
    }


_SETTINGS: Final[dict[str, Any]] = {
    "result_backend": None,
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_default_queue": "secateur",
    "broker_connection_timeout": 2,
    "task_publish_retry": True,
    "task_publish_retry_policy": {
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.1,
    },
}


class Doorbell:
    """Rings from a thread of its own; when the broker is slow or gone, bells are dropped.

    Args:
        settings: Without `broker_url` ringing does nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self._bells: queue.Queue[str | None] = queue.Queue(_BELLS)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if settings.broker_url is not None:
            self._app = celery_app(settings, socket_timeout=1)
            self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
            self._thread.start()

    def ring(self, job_id: str) -> None:
        """Ask for a bell to be rung; never blocks, never raises."""
        if self._thread is None:
            return
        try:
            self._bells.put_nowait(job_id)
        except queue.Full:
            _log.warning("doorbell.dropped", job_id=job_id, reason="full")

    def close(self) -> None:
        """Stop ringing; what is still waiting is dropped."""
        if self._thread is None:
            return
        self._closing.set()
        with suppress(queue.Full):
            self._bells.put_nowait(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closing.is_set():
            job_id = self._bells.get()
            if job_id is not None:
                self._send(job_id)
        self._app.close()

    def _send(self, job_id: str) -> None:
        try:
            self._app.send_task(TICK, args=[job_id])
        except Exception as error:
            _log.warning("doorbell.dropped", job_id=job_id, reason=type(error).__name__)
