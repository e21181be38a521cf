"""How an attempt can end through no fault of the pruning itself."""

from __future__ import annotations

from pruning_core.errors import PruningError


class WorkerLost(PruningError):
    """The child process died without a word: killed, out of memory, or crashed."""

    code = "WORKER_LOST"
    retryable = True


class Stalled(PruningError):
    """The child process lived but made no progress."""

    code = "STALLED"
    retryable = True


class UploadFailed(PruningError):
    """The files of the checkpoint are not the ones that the report lists."""

    code = "UPLOAD_FAILED"
    retryable = True


class Internal(PruningError):
    """A defect of the service; the operator finds the trace in the worker's log."""

    code = "INTERNAL"
