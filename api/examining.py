"""Examining an upload: a large one in a process of its own, so that its cost is bounded and nobody else waits for it."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import anyio
from anyio import BrokenWorkerProcess, to_process, to_thread

from api.deps import Parts
from api.problems import Problem
from pruning_core.datasets import uploads
from pruning_core.datasets.file_formats import Format
from pruning_core.datasets.uploads import Examined
from pruning_core.errors import DatasetInvalid

SMALL = 1 << 18
"""Bytes that are read faster than a process starts."""
MAX_MEMORY = 1 << 30
"""Bytes that the process may allocate: the longest line takes a part of them."""


async def examine(
    parts: Parts,
    path: Path,
    *,
    declared: Format | None,
    name: str,
) -> Examined:
    """Return what a file holds, whose format may be declared.

    Raises:
        DatasetInvalid: it is no data; the message names its line.
        Problem: CHECK_TIMED_OUT, where looking at every line takes longer than the service allows.
    """
    if path.stat().st_size <= SMALL:
        return await to_thread.run_sync(_read, path, declared, name)
    seconds = parts.settings.examine_seconds
    async with parts.examining:
        try:
            with anyio.fail_after(seconds):
                return await to_process.run_sync(
                    _examine,
                    path,
                    declared,
                    name,
                    cancellable=True,
                    limiter=anyio.CapacityLimiter(1),
                )
        except TimeoutError:
            raise _too_slow(name, seconds) from None
        except BrokenWorkerProcess:
            raise _too_large(name) from None


def _examine(path: Path, declared: Format | None, name: str) -> Examined:
    with suppress(ValueError, OSError):  # a lower limit is there already
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    try:
        return _read(path, declared, name)
    except MemoryError:
        raise _too_large(name) from None


def _read(path: Path, declared: Format | None, name: str) -> Examined:
    return uploads.survey(path, format=declared, name=name)


def _too_large(name: str) -> DatasetInvalid:
    return DatasetInvalid(
        f"{name}: a line of it needs more memory than the service allows; send plain items"
    )


def _too_slow(name: str, seconds: float) -> Problem:
    return Problem(
        "CHECK_TIMED_OUT",
        f"{name}: looking at every line took longer than {seconds:g} s.",
        suggestions=("send it in parts", "join short lines into longer documents"),
    )
