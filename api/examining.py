"""Examining an upload in a process of its own: what a file costs is bounded, and nobody else waits for it."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import anyio
from anyio import BrokenWorkerProcess, to_process

from api.deps import Parts
from api.errors import Problem
from pruning_core.errors import DatasetInvalid
from pruning_core.intake import userfiles
from pruning_core.intake.userfiles import Format, Kind

MAX_MEMORY = 1 << 30
"""Bytes that the process may allocate: the longest line takes a part of them."""


async def examine(
    parts: Parts,
    path: Path,
    *,
    format: Format | None,
    name: str,  # noqa: A002
) -> tuple[Format, Kind, int]:
    """Return a file's format, its kind and its number of items.

    Raises:
        DatasetInvalid: it is no data; the message names its line.
        Problem: CHECK_TIMED_OUT, where looking at every line takes longer than the service allows.
    """
    seconds = parts.settings.examine_seconds
    async with parts.examining:
        try:
            with anyio.fail_after(seconds):
                return await to_process.run_sync(
                    _examine, path, format, name, cancellable=True, limiter=anyio.CapacityLimiter(1)
                )
        except TimeoutError:
            raise _too_slow(name, seconds) from None
        except BrokenWorkerProcess:
            raise _too_large(name) from None


def _examine(path: Path, format: Format | None, name: str) -> tuple[Format, Kind, int]:  # noqa: A002
    with suppress(ValueError, OSError):  # a lower limit is there already
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    try:
        return userfiles.examine(path, format=format, name=name)
    except MemoryError:
        raise _too_large(name) from None


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
