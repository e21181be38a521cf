"""What went wrong in the child, in the words that the user gets."""

from __future__ import annotations

from pruning_core.errors import DiskFull, GpuOutOfMemory, HostOutOfMemory, PruningError
from pruning_core.system.files import is_disk_full
from worker.errors import Internal

_HOST_TEXT = ("can't allocate memory", "not enough memory")


def explain(error: BaseException) -> PruningError:
    """Return the error of our own that says the same; the trace of any other stays in the log."""
    if isinstance(error, PruningError):
        return error
    if is_disk_full(error):
        return DiskFull(
            "The worker's disk is full.",
            suggestions=("try again later", "ask the operator for more space"),
        )
    if type(error).__name__ == "OutOfMemoryError":
        return GpuOutOfMemory(
            "The model does not fit the accelerator's memory.",
            suggestions=("use fewer samples or a shorter seq_len", "use a smaller model"),
        )
    if isinstance(error, MemoryError) or any(text in str(error) for text in _HOST_TEXT):
        return HostOutOfMemory(
            "The model does not fit the worker's memory.",
            suggestions=("use fewer samples or a shorter seq_len", "use a smaller model"),
        )
    return Internal("The service met an unexpected error.")
