"""What the report measures before and after pruning."""

from __future__ import annotations

from pydantic import Field

from pruning_core.spec.base import Frozen
from pruning_core.spec.calibration import TaskName


class Evaluation(Frozen):
    """Perplexity on the evaluation split of each task: joined text, non-overlapping windows, the tail dropped."""

    tasks: tuple[TaskName, ...] | None = Field(default=None, max_length=64)
    """Task names. Unset: the calibration tasks (their evaluation split is disjoint from the one that calibrates). Empty: none."""
    windows: int | None = Field(default=16, ge=1, le=65536)
    """Windows per task, from the start of its text. `null`: all of them."""
    seq_len: int | None = Field(default=None, ge=8, le=131072)
    """Tokens per window. Unset: 2048, or the model's own limit where that is smaller."""
    baseline: bool = True
    """Measure the dense model too."""
