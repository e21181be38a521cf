"""Waiting for rows to change without holding a thread: many watchers share a few threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from api.deps import Parts

POLL_SECONDS = 0.5

T = TypeVar("T")


async def in_thread(parts: Parts, function: Callable[[], T]) -> T:
    """Run one short database call on the watchers' threads."""
    return await anyio.to_thread.run_sync(function, limiter=parts.watching)


async def until(
    parts: Parts, look: Callable[[], T], is_enough: Callable[[T], bool], *, seconds: float
) -> T:
    """Look until it is enough or the time is over; return what was seen last."""
    deadline = anyio.current_time() + seconds
    while True:
        seen = await in_thread(parts, look)
        remaining = deadline - anyio.current_time()
        if remaining <= 0 or is_enough(seen):
            return seen
        await anyio.sleep(min(POLL_SECONDS, remaining))
