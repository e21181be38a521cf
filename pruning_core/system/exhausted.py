"""What a machine ran out of, in the words of whoever noticed: Python, torch, an allocator, the system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pruning_core.errors import (
    NO_SPACE,
    DiskFull,
    GpuOutOfMemory,
    HostOutOfMemory,
    PruningError,
)
from pruning_core.system.files import is_disk_full

_SIGNS: Final[Mapping[type[PruningError], tuple[str, ...]]] = {
    GpuOutOfMemory: ("OutOfMemoryError",),
    HostOutOfMemory: ("MemoryError", "can't allocate memory", "not enough memory"),
    DiskFull: ("No space left on device", *(f"(os error {number})" for number in NO_SPACE)),
}
"""The first that fits counts: the name of torch's error contains that of Python's."""


def told_in(text: str) -> type[PruningError] | None:
    """Return the error of ours that says the same as a text, such as what a process wrote before its end."""
    for error, signs in _SIGNS.items():
        if any(sign in text for sign in signs):
            return error
    return None


def told_by(error: BaseException) -> type[PruningError] | None:
    """Return the error of ours that says the same as another."""
    if is_disk_full(error):
        return DiskFull
    return told_in(f"{type(error).__name__}: {error}")
