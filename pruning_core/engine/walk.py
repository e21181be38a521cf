"""The walk: block by block, record statistics with dense weights, prune, store, and go on with pruned outputs.

`observe` is the same walk through the dense model, for what is decided before it; `forward` only moves states on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from pruning_core.engine import device as devices
from pruning_core.engine.activations import Activations
from pruning_core.engine.checkpoint import Ledger
from pruning_core.engine.matrix import InputGroup, input_groups
from pruning_core.engine.model import StreamedModel
from pruning_core.engine.plan import Plan
from pruning_core.engine.prune_block import BlockPruner
from pruning_core.engine.reconstruct import Sample, reconstruct
from pruning_core.engine.record import record
from pruning_core.engine.stats import Stats
from pruning_core.spec.report import BlockReport, ReconstructionReport


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
            work = BlockPruner(self.model, self.plan, self.calibration, index, block)
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
        self, block: nn.Module, work: BlockPruner, samples: list[Sample]
    ) -> ReconstructionReport | None:
        if self.plan.reconstruction is None:
            return None
        weights = work.weights()
        stored = [self.model.files.dtype(name) for name in weights]
        params = self.plan.reconstruction
        return reconstruct(block, list(weights.values()), stored, samples, params, self.alive)

    def _propagate(self, index: int, block: nn.Module, last: int) -> None:
        self.probe.advance(index, block)
        if self.calibration is None or index == last:
            return
        started = time.perf_counter()
        self.calibration.advance(index, block)
        devices.synchronize(self.model.device)
        self.forward_seconds += time.perf_counter() - started
        self.blocks_forwarded += 1


def forward(
    model: StreamedModel,
    states: Activations,
    block_done: Callable[[int], None],
    prepare: Callable[[int, nn.Module], None] = lambda _index, _block: None,
) -> None:
    """Move the states through all blocks; `prepare` may change a block's weights for this once."""
    for index in range(len(model.blocks)):
        with model.block(index) as block:
            prepare(index, block)
            states.advance(index, block)
        block_done(index)


def observe(
    model: StreamedModel,
    states: Activations | None,
    needs: Iterable[str],
    visit: Callable[[int, InputGroup, Stats], None],
    block_done: Callable[[int], None],
) -> None:
    """Show every input of the dense model, with its statistics, to `visit(block, group, stats)`.

    Without states no forward pass is made and the statistics are empty.
    """
    last = len(model.blocks) - 1
    for index in range(last + 1):
        with model.block(index) as block:
            groups = input_groups(block, model.family, model.config)
            found = [Stats(tokens=0) for _ in groups]
            if states is not None:
                found = record(index, block, groups, states, needs)
            for group, stats in zip(groups, found, strict=True):
                visit(index, group, stats)
            if states is not None and index < last:
                states.advance(index, block)
        block_done(index)
