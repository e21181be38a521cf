"""Hears doorbells: any sound one wakes the slots; what is none is dropped and counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import structlog
from celery.exceptions import NotRegistered
from kombu import Connection, Message

from store.broker import TICK, celery_app
from store.settings import Settings

DRAIN_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
PAUSE_SECONDS = 0.01
"""After a message that broke the transport, lest a broken broker keep a core busy."""

_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What the transport raises over a message that is none."""

log = structlog.get_logger()


class DoorbellListener:
    """A thread that reads the broker's queue; a bell says nothing but that the jobs table is worth a look.

    Bells are taken off the queue as they are read, so that none can come back, and of a message nothing is used but the name
    of its task. A broker that is away, at the start or later, is tried again for ever; the slots poll meanwhile.
    """

    def __init__(self, settings: Settings, *, wake: Callable[[], None]) -> None:
        self._app = celery_app(settings)
        self._wake = wake
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doorbell listener", daemon=True)
        self.dropped = 0
        """Messages that were no bells."""

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self, *, seconds: float = 5) -> None:
        """End; a broker that is frozen is not waited for any longer."""
        self._closing.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closing.is_set():
            connection = self._app.connection_for_read()
            try:
                self._listen(connection)
            except Exception as error:  # every broker has words of its own for being away
                log.warning("doorbell.away", error=type(error).__name__)
                self._closing.wait(RECONNECT_SECONDS)
            finally:
                with suppress(Exception):
                    connection.release()

    def _listen(self, connection: Connection) -> None:
        consumer = self._app.amqp.TaskConsumer(
            connection.channel(),
            no_ack=True,
            on_message=self._hear,
            on_decode_error=lambda _, error: self._drop(error),
        )
        with consumer:
            log.info("doorbell.connected")
            while not self._closing.is_set():
                try:
                    connection.drain_events(timeout=DRAIN_SECONDS)
                except TimeoutError:
                    continue
                except _UNREADABLE as error:
                    self._drop(error)
                    self._closing.wait(PAUSE_SECONDS)

    def _hear(self, message: Message) -> None:
        task = message.headers.get("task")
        if task == TICK:
            self._wake()
        else:
            self._drop(NotRegistered(task))

    def _drop(self, error: Exception) -> None:
        self.dropped += 1
        log.warning("doorbell.poisoned", error=type(error).__name__, dropped=self.dropped)
