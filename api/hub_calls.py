"""Calls of the hub for those who wait: threads of their own, few, and one deadline for each call as a whole."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from pruning_core.errors import HubUnavailable

T = TypeVar("T")

MOST = 16
SECONDS = 30.0


class HubCalls:
    """At most so many at a time; a hub that keeps them all waiting delays nobody else.

    A call that is given up goes on in its thread and counts until it ends: no time-out of sockets ends a name's
    look-up, or a reply whose headers come byte by byte.
    """

    def __init__(self, most: int = MOST, seconds: float = SECONDS) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._seconds = seconds

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns.

        Raises:
            HubUnavailable: it takes too long, or all threads wait for the hub.
        """
        started = asyncio.wrap_future(self._start(call))
        try:
            return await asyncio.wait_for(started, self._seconds)
        except TimeoutError:
            raise _late(self._seconds) from None

    def within(self, seconds: float, call: Callable[[], T]) -> T:
        """Return what `call` returns, to a thread that waits so long.

        Raises:
            HubUnavailable: as `run`.
        """
        try:
            return self._start(call).result(seconds)
        except TimeoutError:
            raise _late(seconds) from None

    def _start(self, call: Callable[[], T]) -> Future[T]:
        if not self._free.acquire(blocking=False):
            raise HubUnavailable("The hub keeps too many others waiting; try again later.")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # so that giving up is no cancel
        work = threading.Thread(
            target=self._work, args=(call, future), name="hub-call", daemon=True
        )
        work.start()
        return future

    def _work(self, call: Callable[[], T], future: Future[T]) -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)
        finally:
            self._free.release()


def _late(seconds: float) -> HubUnavailable:
    return HubUnavailable(f"The hub did not answer within {seconds:g} s.")
