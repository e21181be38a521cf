"""`Outcome`: what became of a run whose checkpoint lies in its place."""

from __future__ import annotations

from dataclasses import dataclass

from pruning_core.evaluate.verify import Examined
from pruning_core.pipeline.job_walk import Decided
from pruning_core.prune.walk import Walk
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report import GgufReport, RoundingReport


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        walk: What was done to each block.
        decided: What was decided before.
        examined: What a fresh process made of the checkpoint.
        bytes: Of the checkpoint's tensors.
        recovery: What fine-tuning did.
        rounding: What rounding did.
        gguf: The GGUF file.
    """

    walk: Walk
    decided: Decided
    examined: Examined
    bytes: int
    recovery: RecoveryReport | None
    rounding: RoundingReport | None
    gguf: GgufReport | None
