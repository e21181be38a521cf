"""What went wrong in the child, in the words that the user gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pruning_core.errors import DiskFull, GpuOutOfMemory, HostOutOfMemory, PruningError
from pruning_core.system import exhausted
from worker.errors import Internal

_LARGER_DISK = ("try again later", "ask the operator for more space")
_SMALLER = ("use fewer samples or a shorter seq_len", "use a smaller model")
_WANTING: Final[Mapping[type[PruningError], tuple[str, tuple[str, ...]]]] = {
    DiskFull: ("The worker's disk is full.", _LARGER_DISK),
    GpuOutOfMemory: ("The model does not fit the accelerator's memory.", _SMALLER),
    HostOutOfMemory: ("The model does not fit the worker's memory.", _SMALLER),
}


def explain(error: BaseException) -> PruningError:
    """Return the error of our own that says the same; the trace of any other stays in the log."""
    if isinstance(error, PruningError):
        return error
    wanting = exhausted.told_by(error)
    if wanting is None:
        return Internal("The service met an unexpected error.")
    message, suggestions = _WANTING[wanting]
    return wanting(message, suggestions=suggestions)
