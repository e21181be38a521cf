"""The files of the result, opened and compared."""

from __future__ import annotations

from pruning_core.spec.base import Frozen
from pruning_core.spec.output import GgufType, RoundedDtype


class FileEntry(Frozen):
    """One file of the checkpoint."""

    path: str
    bytes: int
    sha256: str
    media_type: str


class Verification(Frozen):
    """The result, opened by stock transformers in a fresh process."""

    loads_in: dict[str, str]
    max_logit_difference: float
    """Largest absolute difference to the logits of the pruned model in memory, over the largest absolute logit."""
    sample: str
    """Greedy continuation of a short prompt."""
    dense_sample: str | None = None
    """Of the dense model, where its speed was measured."""


class RoundingReport(Frozen):
    """What writing the checkpoint in another type than the source's did to its weights; zeros stay zero."""

    dtype: RoundedDtype
    weights: int
    """How many there are."""
    changed: int
    """Of them, those that the type does not hold exactly."""
    underflows: int
    """Of them, those that were not zero and became zero."""
    relative_error: float
    """Norm of the change of all weights over the norm of all weights."""
    largest_relative_error: float
    """Of one tensor: norm of its change over its norm."""
    max_logit_difference: float
    """Largest absolute difference of the logits of a short probe to those before rounding, over the largest absolute logit."""


class GgufReport(Frozen):
    """The GGUF file, read back and compared with the checkpoint tensor by tensor; zeros stay zero."""

    file: str
    type: GgufType
    bytes: int
    underflows: int
    """Weights that were not zero and became zero."""
    relative_error: float
    """Norm of the change of all weights over the norm of all weights."""
    largest_relative_error: float
    """Of one tensor: norm of its change over its norm."""
