"""Every error that pruning can end with: one class each, with a stable code and a message that names the fix."""

from __future__ import annotations

import errno
from typing import Any, ClassVar, Final, Literal

from pruning_core.printable import MESSAGE, shown

NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system says of a disk, a quota or a limit on a file that is exhausted."""
ErrorClass = Literal["user", "system"]


class PruningError(Exception):
    """The root of the tree; `code` is stable, messages may change.

    Args:
        message: What is wrong and how to mend it, in one or two sentences. Strangers' text in it is bounded and made visible.
        suggestions: Things the user can do instead, shortest first.
        pointer: JSON pointer to the field of the request that is at fault.
    """

    code: ClassVar[str] = "INTERNAL"
    error_class: ClassVar[ErrorClass] = "system"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, suggestions: tuple[str, ...] = (), pointer: str | None = None
    ) -> None:
        self.message = shown(message, MESSAGE)
        super().__init__(self.message)
        self.suggestions = tuple(shown(suggestion, MESSAGE) for suggestion in suggestions)
        self.pointer = pointer

    def payload(self) -> dict[str, Any]:
        """Return the JSON object that `job.error` and problem responses carry."""
        return {
            "code": self.code,
            "class": self.error_class,
            "retryable": self.retryable,
            "detail": self.message,
            "suggestions": list(self.suggestions),
            **({"pointer": self.pointer} if self.pointer else {}),
        }


class UserError(PruningError):
    """The request or its model cannot be served as it is; trying again changes nothing."""

    error_class = "user"


class ModelNotFound(UserError):
    """The reference names no model."""

    code = "MODEL_NOT_FOUND"


class ModelNotAllowed(UserError):
    """The path lies outside the folders that the operator allows."""

    code = "MODEL_NOT_ALLOWED"


class ModelInvalid(UserError):
    """The folder is no sound checkpoint: configuration, header or tensors are missing or contradict each other."""

    code = "MODEL_INVALID"


class ModelNotFinite(UserError):
    """A weight of the source checkpoint is NaN or infinite."""

    code = "MODEL_NOT_FINITE"


class ModelGated(UserError):
    """The hub wants a licence accepted or a token that may read this model."""

    code = "MODEL_GATED"


class UnsafePickle(UserError):
    """Only pickled weights are there; loading them would run their author's code."""

    code = "UNSAFE_PICKLE"


class UnsupportedModel(UserError):
    """No family table describes this architecture."""

    code = "MODEL_UNSUPPORTED"


class UnsupportedPattern(UserError):
    """The method cannot produce the pattern, or the pattern does not fit a matrix of this model."""

    code = "PATTERN_UNSUPPORTED"


class DatasetNotFound(UserError):
    """No task of this name is known here."""

    code = "DATASET_NOT_FOUND"


class DatasetInvalid(UserError):
    """A line of the task's data is malformed; the message names file and line."""

    code = "DATASET_INVALID"


class DatasetTooSmall(UserError):
    """The task's text does not fill the windows asked for."""

    code = "DATASET_TOO_SMALL"


class DatasetUnreachable(UserError):
    """The task's data lies on a hub that cannot be reached from here, or that wants a licence accepted."""

    code = "DATASET_UNREACHABLE"
    retryable = True


class DatasetAway(DatasetUnreachable):
    """The hub that holds the task's data does not answer; it may later."""


class DataLeakage(UserError):
    """The same items would calibrate and be evaluated."""

    code = "DATA_LEAKAGE"


class QualityGateFailed(UserError):
    """The pruned model misses a bound that the job set; its results are kept."""

    code = "QUALITY_GATE_FAILED"


class HarnessUnavailable(UserError):
    """lm-evaluation-harness is not installed beside the worker, or does not know the task."""

    code = "HARNESS_UNAVAILABLE"


class TokensInvalid(UserError):
    """Calibration tokens of the wrong shape, type or range."""

    code = "TOKENS_INVALID"


class PresetNotFound(UserError):
    """No stored coefficients have this name."""

    code = "PRESET_NOT_FOUND"


class ResumeMismatch(UserError):
    """The work folder belongs to another specification, model, data set or version."""

    code = "RESUME_MISMATCH"


class FolderInUse(UserError):
    """Another process works in the output folder."""

    code = "FOLDER_IN_USE"


class NothingMatched(PruningError):
    """The family table matched no prunable matrix: a walk that changes nothing is never a success."""

    code = "NOTHING_MATCHED"


class NumericalFailure(PruningError):
    """NaN or infinity in calibration or scores, or a factorisation that damping could not save."""

    code = "NUMERIC_FAILURE"


class OutputDoesNotLoad(PruningError):
    """Stock transformers, in a fresh process, did not reproduce the pruned model."""

    code = "OUTPUT_DOES_NOT_LOAD"


class OutputOverflow(UserError):
    """A weight is too large for the type that the checkpoint shall be written in."""

    code = "OUTPUT_OVERFLOW"


class DiskFull(PruningError):
    """The disk cannot hold the checkpoint and its work files."""

    code = "DISK_FULL"


class HostOutOfMemory(PruningError):
    """The machine's memory did not suffice."""

    code = "HOST_OOM"


class GpuOutOfMemory(PruningError):
    """The accelerator's memory did not suffice."""

    code = "GPU_OOM"


class HubUnavailable(PruningError):
    """The model hub cannot be reached; a later attempt may succeed."""

    code = "HUB_UNAVAILABLE"
    retryable = True


class UnitsUnsupported(UserError):
    """Units of this kind cannot be removed from this architecture, or not by this method."""

    code = "METHOD_UNSUPPORTED_FOR_ARCH"


class SizeUnreachable(UserError):
    """No legal size of the model comes near the amount asked for; the message names those that there are."""

    code = "SIZE_UNREACHABLE"
