"""The pruning of one block: record its inputs, prune every matrix, keep note of what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import nn

from pruning_core.families.base import ParameterLocation
from pruning_core.model.channel_order import absorbed_permutation, channel_order
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, Matrix, input_groups
from pruning_core.model.recorder import record
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.plans.element import ElementPlan
from pruning_core.prune.block_result import BlockResult
from pruning_core.prune.matrix import Ordering, prune_matrix
from pruning_core.spec.report_parts.removal import MatrixReport

NEVER_REACHED = "block {}, {}: the calibration text never reached its input; its weights were compared without activations"
FEW_TOKENS = (
    "block {}, {}: {} calibration tokens for {} inputs; its Gram matrix is singular and damping decides "
    "what the text leaves open. Use more windows."
)


@dataclass
class BlockMatrices:
    """The matrices of one block, while they are pruned.

    Attributes:
        model: The model that the block belongs to.
        plan: What to do with every matrix.
        calibration: States of the calibration windows before the block, or None where nothing reads them.
        index: Which block.
        module: Its module, with dense weights at first.
        reports: One per matrix, in order of execution.
        warnings: What the user must know.
        orders: Channel orders that are saved beside the model, by stored name.
    """

    model: StreamedModel
    plan: ElementPlan
    calibration: Activations | None
    index: int
    module: nn.Module
    reports: list[MatrixReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    orders: dict[str, torch.Tensor] = field(default_factory=dict)
    _moved: dict[str, nn.Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.groups = input_groups(self.module, self.model.family, self.model.config)
        self.matrices = {matrix.name: matrix for group in self.groups for matrix in group.matrices}

    def prune(self) -> BlockResult:
        """Prune every matrix, stage by stage where the plan says so, and return what became of them."""
        for groups in self._stages():
            seen = self._statistics(groups)
            for group in groups:
                stats = seen.pop(0)  # with its factorisations it goes when the group is done
                for matrix in group.matrices:
                    self._prune(matrix, stats)
                    if self.calibration is not None:
                        self.calibration.alive()
        return BlockResult(
            changed={**self.weights(), **self._moved},
            matrices=self.reports,
            orders=self.orders,
            warnings=self.warnings,
        )

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the parameters that hold pruned matrices, by stored name; several matrices may share one."""
        places = map(self._place, self.matrices.values())
        return dict(self._parameter(place.weight) for place in places)

    def _stages(self) -> list[list[InputGroup]]:
        if not self.plan.stages:
            return [self.groups]
        return [list(groups) for _, groups in groupby(self.groups, key=lambda group: group.stage)]

    def _statistics(self, groups: Sequence[InputGroup]) -> list[Stats]:
        if self.calibration is None or not self.plan.needs:
            return [Stats(tokens=0) for _ in groups]
        needs = [self.plan.needs] * len(groups)
        seen = record(self.index, self.module, groups, self.calibration, needs)
        for group, stats in zip(groups, seen, strict=True):
            self._warn(group, stats)
        return seen

    def _warn(self, group: InputGroup, stats: Stats) -> None:
        name, width = group.matrices[0].name, group.matrices[0].shape[1]
        if stats.dead_input:
            self.warnings.append(NEVER_REACHED.format(self.index, name))
        elif stats.gram is not None and stats.tokens < width:
            self.warnings.append(FEW_TOKENS.format(self.index, name, stats.tokens, width))

    def _prune(self, matrix: Matrix, stats: Stats) -> None:
        name = self._stored(matrix)
        select = self.plan.select_for(self.index, len(self.reports))
        ordering = self._ordering(matrix, stats)
        stored = self.model.files.dtype(name.partition("[")[0])
        self.reports.append(
            prune_matrix(
                matrix,
                name,
                stats,
                self.plan.element,
                self.plan.refinements_of(attention=self.model.family.attention.has(matrix.name)),
                select,
                ordering=ordering,
                stored=stored,
            )
        )
        if ordering is None:
            return
        if ordering.absorbed is None:
            self.orders[name] = ordering.order
        else:
            for module in ordering.absorbed.reorder_writers(ordering.order):
                writer = next(other for other in self.matrices.values() if other.module is module)
                self._moved.update([self._parameter(self._place(writer).bias)])

    def _ordering(self, matrix: Matrix, stats: Stats) -> Ordering | None:
        """Return the order of a matrix's channels, where the pattern permutes them and this matrix allows it."""
        pattern, element, absorbed = self.plan.permuting, self.plan.element, None
        if pattern is None:
            return None
        if pattern.permute == "fold":
            family, config = self.model.family, self.model.config
            absorbed = absorbed_permutation(matrix, self.matrices.values(), family, config)
            if absorbed is None:
                return None
        score = element.score(matrix.read(), stats, element.params)
        choose = channel_order if absorbed is None else absorbed.order
        return Ordering(choose(score, pattern.n, pattern.m), score, absorbed)

    def _place(self, matrix: Matrix) -> ParameterLocation:
        return self.model.family.location(matrix.name)

    def _parameter(self, name: str) -> tuple[str, nn.Parameter]:
        """Return a parameter of the block with its stored name."""
        return self.model.stored(self.index, name), self.module.get_parameter(name)

    def _stored(self, matrix: Matrix) -> str:
        """Return a matrix's name in the checkpoint, with its part's in brackets."""
        place = self._place(matrix)
        stored, _ = self._parameter(place.weight)
        return f"{stored}[{place.part}]" if place.part else stored
