"""`DenseModel`: what a method that removes units may ask of the dense model before the first block is pruned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.datasets.data_used import DataUsed
from pruning_core.errors import SizeUnreachable
from pruning_core.model.hidden_states import Activations
from pruning_core.model.recorder import record
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.plans.registry import unit_score
from pruning_core.plans.unit import UnitPlan, UnitScore
from pruning_core.prune.walk import forward
from pruning_core.spec.patterns import Units
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.unit_method import UNIT_NAMES, InnerKind, UnitKind, UnitMethod, inner_kinds
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.layout import Layout, layout_of
from pruning_core.structure.spans import Sizes
from pruning_core.structure.target import Target
from pruning_core.system.progress import Tracker
from pruning_core.text.task_reader import TaskReader
from pruning_core.text.windows import Windows
from pruning_core.units.attention_divergence import head_divergence
from pruning_core.units.block_units import BlockUnits

Scores = dict[tuple[int, str], torch.Tensor]
"""Scores [size] by block and name of the group."""


@dataclass(frozen=True)
class DenseModel:
    """The dense model, what was asked of it, and its calibration text.

    Attributes:
        model: The dense model.
        source: Its folder.
        facts: Of the folder.
        spec: What was asked for.
        work: Folder of the run's resumable state.
        calibration: Calibration windows; None where nothing reads any.
        reader: Reads the calibration data with the model's tokenizer; None where the caller gave tokens.
        data_used: What the run reads of its tasks.
        tracker: Told of every step.
        warnings: What the user must know; grows.
    """

    model: StreamedModel
    source: Path
    facts: CheckpointFacts
    spec: PruneSpec
    work: Path
    calibration: Windows | None
    reader: TaskReader | None
    data_used: DataUsed
    tracker: Tracker
    warnings: list[str] = field(default_factory=list)

    @property
    def params(self) -> UnitMethod:
        """The method's parameters."""
        assert isinstance(self.spec.method, UnitMethod)
        return self.spec.method

    @property
    def pattern(self) -> Units:
        """Mode and rounding."""
        assert self.spec.units is not None
        return self.spec.units

    @cached_property
    def layout(self) -> Layout:
        """The units of every tensor."""
        return layout_of(self.facts, self.spec.output)

    @cached_property
    def cutter(self) -> Cutter:
        """What can be cut."""
        return Cutter(self.layout, self.pattern)

    @cached_property
    def kinds(self) -> tuple[UnitKind, ...]:
        """The units that go."""
        return self.cutter.require(self.params.unit_kinds, self.params.name)

    @property
    def plan(self) -> UnitPlan:
        """The plan by which nothing goes yet."""
        return UnitPlan(
            self.params, self.pattern, self.layout, self.layout.sizes, refit=self.spec.refit
        )

    @property
    def windows(self) -> Windows:
        """Return the calibration windows."""
        assert self.calibration is not None
        return self.calibration

    @property
    def target(self) -> Target:
        """How large the result shall be, where the job names it."""
        return Target.of(self.cutter, self.spec.sparsity, self.spec.budget)

    @property
    def score(self) -> UnitScore:
        """The method's score of the units of one group."""
        return unit_score(self.params)

    def states(self, groups: Sequence[torch.Tensor] | None = None) -> Activations:
        """Return the states of text before the first block.

        Args:
            groups: int64 [samples, seq] each; None for the calibration windows.
        """
        text = self.windows.groups if groups is None else groups
        return Activations(self.model, text, alive=self.tracker.alive)

    def progress(self, passes: int = 1) -> Callable[[int], None]:
        """Return what counts the blocks of some forward passes, called after each."""
        blocks = len(self.model.blocks)
        self.tracker.begin("calibrating", blocks * passes, key="observing")
        steps = iter(range(1, blocks * passes + 1))
        return lambda _index: self.tracker.step(next(steps))

    def scores(
        self,
        kinds: Collection[UnitKind] | None = None,
        *,
        score: UnitScore | None = None,
        states: Activations | None = None,
        block_done: Callable[[int], None] | None = None,
    ) -> Scores:
        """Return the scores of every group of units on the dense model, in one forward pass.

        Args:
            kinds: Units that are scored; None for all that go.
            score: None for the method's own.
            states: Of text at the first block, which end behind the last; None for the calibration windows, if any.
            block_done: Called with each block's number; None to count one pass.
        """
        kinds = self.kinds if kinds is None else kinds
        score = score or self.score
        if states is None and self.calibration is not None:
            states = self.states()
        scores: Scores = {}

        def visit(index: int, block: nn.Module) -> None:
            units = BlockUnits.of(
                block, self.model.family, self.model.config, self.layout, lambda u: u.kind in kinds
            )
            for name, of_group in self._scores_of(index, block, units, states, score).items():
                scores[index, name] = of_group

        forward(self.model, states, block_done or self.progress(), visit)
        return scores

    def _scores_of(
        self,
        index: int,
        block: nn.Module,
        units: BlockUnits,
        states: Activations | None,
        score: UnitScore,
    ) -> dict[str, torch.Tensor]:
        divergence = None
        if score.params.compares_heads and states is not None:
            divergence = head_divergence(index, block, self.model.family, states, self.layout)
        needs = {
            group: units.asked(group, score.needs, score.input_needs) for group in units.inputs
        }
        inputs = [group for group in units.inputs if needs[group]]
        seen: dict[str, Stats] = {}
        if inputs and states is not None:
            stats = record(index, block, inputs, states, [needs[group] for group in inputs])
            seen = {group.matrices[0].name: of for group, of in zip(inputs, stats, strict=True)}
        return {
            group.name: score.score(
                units.candidates(group, seen, divergence, index), score.params
            ).cpu()
            for group in units.by_readout.values()
        }

    def lowest(self, scores: Scores, sizes: Sizes) -> dict[tuple[int, str], torch.Tensor]:
        """Return the units of lowest score that go to come to the sizes, by block and group name."""
        return {
            key: of_group.double().argsort(stable=True)[:n_drop].sort().values
            for key, of_group in scores.items()
            if (n_drop := self.n_drop(key[1], sizes))
        }

    def n_drop(self, name: str, sizes: Sizes) -> int:
        """Return how many units of a group go to come to the sizes."""
        kind: InnerKind = "kv_groups" if name == "kv_groups" else "neurons"
        return self.layout.sizes.of(kind) - sizes.of(kind)

    def nearest(self, kind: UnitKind, taken: float, sizes: Sizes) -> Sizes:
        """Return the sizes with the legal number of one kind that is nearest to all but `taken`."""
        whole = self.layout.sizes.of(kind)
        legal = (*self.cutter.legal(kind), whole)
        return replace(
            sizes, **{kind: min(reversed(legal), key=lambda n: abs(n - (whole - taken)))}
        )

    def refuse_nothing(self, plan: UnitPlan) -> None:
        """Refuse a plan by which nothing goes.

        Raises:
            SizeUnreachable: it is one.
        """
        if plan.sizes != self.layout.sizes or plan.inner or plan.low_activation:
            return
        names = " and ".join(UNIT_NAMES[kind] for kind in self.kinds)
        where = (
            " that could go from every block" if plan.removing and inner_kinds(self.kinds) else ""
        )
        raise SizeUnreachable(
            f"The threshold takes no {names}{where}.",
            suggestions=("raise the threshold", "calibrate on text of the domain alone"),
            pointer="/prune/method",
        )


def taken_per_block(
    scores: Mapping[tuple[int, str], torch.Tensor],
    kind: UnitKind,
    marked: Callable[[torch.Tensor], torch.Tensor],
) -> float:
    """Return how many units of a kind a mark takes from a group, on the mean over all groups.

    Args:
        scores: [size] by block and name of the group.
        kind: Of the units.
        marked: Of one group's scores, bool [size]: what would go.
    """
    of_kind = [of_group for (_, name), of_group in scores.items() if name.startswith(kind)]
    return sum(int(marked(of_group).sum()) for of_group in of_kind) / len(of_kind)
