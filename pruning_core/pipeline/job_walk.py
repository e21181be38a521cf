"""`JobWalk`: the pass over all blocks of one job, with what was decided before it; `Outcome`: what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from pruning_core.evaluate.verify import Examined
from pruning_core.export.checkpoint import Changes
from pruning_core.pipeline.run import Run
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.walk import Walk
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report_parts.files import GgufReport, RoundingReport
from pruning_core.spec.report_parts.search import SearchReport


@dataclass(frozen=True)
class Decided:
    """What was decided before the first block.

    Attributes:
        search: What a search of coefficients found.
        ratios: Share of the weights that goes, by block.
        units: Which units go.
    """

    search: SearchReport | None = None
    ratios: tuple[float, ...] | None = None
    units: UnitPlan | None = None


class JobWalk(Protocol):
    """The pass over all blocks of one job."""

    @property
    def walk(self) -> Walk:
        """The pass."""

    @property
    def decided(self) -> Decided:
        """What was decided before it."""

    @property
    def probe(self) -> torch.Tensor:
        """Tokens whose logits vouch for the result, int64 [1, seq], as the dense model numbers them."""

    @property
    def cuts(self) -> bool:
        """Whether tensors of the result are smaller."""

    @property
    def rescales(self) -> bool:
        """Whether the result is a little off by design."""

    def changes(self, run: Run) -> Changes:
        """Return what the checkpoint has other than the source, beside the tensors of the blocks."""

    def renumbered(
        self, tokens: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens [1, seq] and logits [1, seq, vocabulary] as the result numbers its tokens."""


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
