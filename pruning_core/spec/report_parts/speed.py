"""How fast both models are, and how long the job took."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.base import Frozen
from pruning_core.spec.report_parts.quality import Interval


class Throughput(Frozen):
    """Tokens per second of one model, median of repeated runs."""

    prefill: float
    """Reading a prompt."""
    decode: float
    """Writing, one token after the other, with the cache."""


class SpeedRatio(Frozen):
    """Pruned over dense speed in one phase: median of the rounds."""

    value: float
    interval: Interval | None
    """Of the median; None where there was time for few rounds only."""


class SpeedReport(Frozen):
    """Both models in turn, round by round, in one process of stock transformers; compare the two, not machines."""

    dense: Throughput | None
    pruned: Throughput
    ratios: dict[Literal["prefill", "decode"], SpeedRatio] = Field(default_factory=dict)
    """Empty where the two were not timed together."""
    rounds: int = 0
    busy_cores: float | None = None
    """Processor cores that other programs kept busy meanwhile, on average."""
    doubts: tuple[str, ...] = ()
    """Why the ratios are not to be relied on."""
    prompt_tokens: int
    new_tokens: int


class Timing(Frozen):
    """Seconds per phase, and the one figure that compares across machines."""

    phases: dict[str, float]
    """Their sum is the time from `started_at` to `finished_at`; `resolving` is the start of the process and the check of
    the job, `preparing` the reading of data, `earlier_attempts` what went before this attempt."""
    prune_over_forward: float | None
    """Seconds of pruning over seconds of one plain forward pass of the same tokens through the same blocks, timed on one block in the same run."""
