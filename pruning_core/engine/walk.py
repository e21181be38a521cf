"""The walk: block by block, record statistics with dense weights, prune, store, and go on with pruned outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import nn

from pruning_core.engine import device as devices
from pruning_core.engine.activations import Activations
from pruning_core.engine.checkpoint import Ledger
from pruning_core.engine.matrix import InputGroup, Matrix, input_groups
from pruning_core.engine.model import StreamedModel
from pruning_core.engine.permute import Folding, channel_order, folding
from pruning_core.engine.plan import Plan
from pruning_core.engine.prune_matrix import prune_matrix
from pruning_core.engine.reconstruct import Sample, reconstruct
from pruning_core.engine.record import record
from pruning_core.engine.stats import Stats
from pruning_core.spec.report import BlockReport, MatrixReport, ReconstructionReport

NEVER_REACHED = "block {}, {}: the calibration text never reached its input; its weights were compared without activations"
FEW_TOKENS = (
    "block {}, {}: {} calibration tokens for {} inputs; its Gram matrix is singular and damping decides "
    "what the text leaves open. Use more windows."
)


@dataclass
class Walk:
    """One pass over all blocks.

    Attributes:
        model: The dense model.
        plan: What to do with every matrix.
        ledger: Finished blocks; a block that it holds is replayed, not pruned again.
        calibration: States of the calibration windows, or None where nothing reads them.
        probe: States of a few tokens that end as the logits of the pruned model.
        dense: States of the calibration windows in the dense model, window by window, for reconstruction.
        alive: Called often.
        forward_seconds: Time spent in plain forward passes over the calibration windows.
        blocks_forwarded: Blocks that `forward_seconds` covers.
    """

    model: StreamedModel
    plan: Plan
    ledger: Ledger
    calibration: Activations | None
    probe: Activations
    dense: Activations | None = None
    alive: Callable[[], None] = lambda: None
    forward_seconds: float = 0.0
    blocks_forwarded: int = 0

    def run(self, block_done: Callable[[int, BlockReport | None], None]) -> None:
        """Prune every block that the ledger lacks; call `block_done(index, report or None if replayed)` after each."""
        last = len(self.model.blocks) - 1
        for index in range(last + 1):
            report = None
            if index in self.ledger:
                self._replay(index, last)
            else:
                report = self._prune_block(index, last)
            block_done(index, report)

    def _replay(self, index: int, last: int) -> None:
        if self.dense is not None and index < last:
            with self.model.block(index) as block:
                self.dense.advance(index, block)
        with self.model.block(index, self.ledger.weights(index, self.model)) as block:
            self._propagate(index, block, last)

    def _prune_block(self, index: int, last: int) -> BlockReport:
        started = time.perf_counter()
        with self.model.block(index) as block:
            samples = self._dense_samples(index, block)
            work = _Block(self, index, block)
            work.prune()
            reconstruction = self._reconstruct(block, work, samples)
            self.ledger.save(index, work.changed(), self.model, work.orders)
            self._propagate(index, block, last)
        devices.synchronize(self.model.device)
        seconds = time.perf_counter() - started
        return self.ledger.record(index, work.reports, seconds, work.warnings, reconstruction)

    def _dense_samples(self, index: int, block: nn.Module) -> list[Sample]:
        """Return every window's way through the dense block, and move the dense states to its output."""
        if self.dense is None:
            return []
        assert self.calibration is not None
        assert self.plan.reconstruction is not None
        source = self.calibration if self.plan.reconstruction.propagate else self.dense
        inputs = list(source.inputs(index))
        self.dense.advance(index, block)
        return [
            Sample(hidden, call, target)
            for (hidden, call), target in zip(inputs, self.dense.hidden, strict=True)
        ]

    def _reconstruct(
        self, block: nn.Module, work: _Block, samples: list[Sample]
    ) -> ReconstructionReport | None:
        if self.plan.reconstruction is None:
            return None
        weights = list(work.weights().values())
        return reconstruct(block, weights, samples, self.plan.reconstruction, self.alive)

    def _propagate(self, index: int, block: nn.Module, last: int) -> None:
        self.probe.advance(index, block)
        if self.calibration is None or index == last:
            return
        started = time.perf_counter()
        self.calibration.advance(index, block)
        devices.synchronize(self.model.device)
        self.forward_seconds += time.perf_counter() - started
        self.blocks_forwarded += 1


@dataclass
class _Block:
    """The pruning of one block.

    Attributes:
        walk: What the block belongs to.
        index: Which block.
        module: Its module, with dense weights at first.
        reports: One per matrix, in order of execution.
        warnings: What the user must know.
        orders: Channel orders that are saved beside the model, by stored name.
    """

    walk: Walk
    index: int
    module: nn.Module
    reports: list[MatrixReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    orders: dict[str, torch.Tensor] = field(default_factory=dict)
    _moved: dict[str, nn.Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.walk.model
        self.groups = input_groups(self.module, model.family, model.config)
        self.matrices = {matrix.name: matrix for group in self.groups for matrix in group.matrices}

    def prune(self) -> None:
        """Prune every matrix, stage by stage where the plan says so."""
        for groups in self._stages():
            for group, stats in zip(groups, self._statistics(groups), strict=True):
                for matrix in group.matrices:
                    self._prune(matrix, stats)

    def weights(self) -> dict[str, nn.Parameter]:
        """Return the pruned modules' weights by stored name; parts of a fused one share it."""
        return {
            self._stored(matrix).partition("[")[0]: matrix.module.get_parameter("weight")
            for matrix in self.matrices.values()
        }

    def changed(self) -> dict[str, torch.Tensor]:
        """Return every tensor of the block that is no longer the source's, by stored name."""
        return {**self.weights(), **self._moved}

    def _stages(self) -> list[list[InputGroup]]:
        if not self.walk.plan.stages:
            return [self.groups]
        return [list(groups) for _, groups in groupby(self.groups, key=lambda group: group.stage)]

    def _statistics(self, groups: Sequence[InputGroup]) -> list[Stats]:
        states, needs = self.walk.calibration, self.walk.plan.needs
        if states is None or not needs:
            return [Stats(tokens=0) for _ in groups]
        found = record(self.index, self.module, groups, states, needs)
        return [self._usable(*pair) for pair in zip(groups, found, strict=True)]

    def _usable(self, group: InputGroup, stats: Stats) -> Stats:
        name, width = group.matrices[0].name, group.matrices[0].shape[1]
        if stats.silent:
            self.warnings.append(NEVER_REACHED.format(self.index, name))
            return stats.with_unit_input()
        if stats.gram is not None and stats.tokens < width:
            self.warnings.append(FEW_TOKENS.format(self.index, name, stats.tokens, width))
        return stats

    def _prune(self, matrix: Matrix, stats: Stats) -> None:
        plan, name = self.walk.plan, self._stored(matrix)
        select = plan.select_for(self.index, len(self.reports))
        select.check(name, matrix.shape)
        folding, order = self._channel_order(matrix, stats)
        self.reports.append(
            prune_matrix(
                matrix,
                name,
                stats,
                plan,
                select,
                order=order,
                folded=folding is not None,
                stored=self.walk.model.files.dtype(name.partition("[")[0]),
            )
        )
        if order is None:
            return
        if folding is None:
            self.orders[name] = order
        else:
            for module in folding.reorder_writers(order):
                self._moved[self._bias_name(module)] = module.get_parameter("bias")

    def _channel_order(
        self, matrix: Matrix, stats: Stats
    ) -> tuple[Folding | None, torch.Tensor | None]:
        """Return the channel order of a matrix, and what absorbs it if anything does."""
        pattern, model = self.walk.plan.permuting, self.walk.model
        if pattern is None:
            return None, None
        element = self.walk.plan.element
        if pattern.permute == "mask":
            score = element.score(matrix.read(), stats, element.params)
            return None, channel_order(score, pattern.n, pattern.m)
        found = folding(matrix, self.matrices.values(), model.family, model.config)
        if found is None:
            return None, None
        score = element.score(matrix.read(), stats, element.params)
        return found, found.order(score, pattern.n, pattern.m)

    def _bias_name(self, module: nn.Module) -> str:
        """Return the stored name of a pruned module's bias."""
        matrix = next(one for one in self.matrices.values() if one.module is module)
        return self._stored(matrix).partition("[")[0].removesuffix("weight") + "bias"

    def _stored(self, matrix: Matrix) -> str:
        """Return a matrix's name in the checkpoint, with its part's in brackets."""
        model = self.walk.model
        path, bracket, part = matrix.name.partition("[")
        stored = model.files.stored_name(f"{model.block_prefix(self.index)}{path}.weight")
        assert stored is not None
        return stored + bracket + part
