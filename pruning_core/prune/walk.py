"""The walk: block by block, record statistics with dense weights, prune, store, and go on with pruned outputs.

`observe` is the same walk through the dense model, for what is decided before it; `forward` only moves states on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, input_groups
from pruning_core.model.recorder import record
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.prune.block_result import BlockResult
from pruning_core.prune.ledger import Ledger
from pruning_core.spec.report_parts.removal import BlockReport
from pruning_core.system import device as devices


class BlockPruner(Protocol):
    """The pruning of one block."""

    @property
    def advances_plainly(self) -> bool:
        """Whether `advance` is one plain forward pass, so that its time says what one costs."""

    def prune(self) -> BlockResult:
        """Prune the block in place, move the dense states over it, where there are any, and return what became of it."""

    def advance(self, calibration: Activations) -> None:
        """Move the calibration states over the pruned block."""


@dataclass
class Walk:
    """One pass over all blocks.

    Attributes:
        model: The dense model.
        ledger: Finished blocks; a block that it holds is replayed, not pruned again.
        calibration: States of the calibration windows, or None where nothing reads them.
        probe: States of a few tokens that end as the logits of the pruned model.
        make_pruner: What prunes a block, given its index and its module with dense weights.
        dense: States of the calibration windows in the dense model, where something compares with it.
        skipped: Blocks that go as a whole.
        prepare_block: Changes the weights of a finished block that is loaded again, as its pruner did before it pruned.
        forward_seconds: Time spent in plain forward passes over the calibration windows.
        blocks_forwarded: Blocks that `forward_seconds` covers.
    """

    model: StreamedModel
    ledger: Ledger
    calibration: Activations | None
    probe: Activations
    make_pruner: Callable[[int, nn.Module], BlockPruner]
    dense: Activations | None = None
    skipped: Collection[int] = ()
    prepare_block: Callable[[int, nn.Module], None] = lambda _index, _block: None
    forward_seconds: float = 0.0
    blocks_forwarded: int = 0

    def run(self, block_done: Callable[[int, BlockReport | None], None]) -> None:
        """Prune every block that the ledger lacks; call `block_done(index, report or None if replayed)` after each."""
        last = len(self.model.blocks) - 1
        for index in range(last + 1):
            report = None
            if index in self.ledger:
                self._replay(index, last)
            elif index in self.skipped:
                report = self._skip(index)
            else:
                report = self._prune_block(index, last)
            block_done(index, report)

    def release(self) -> None:
        """Forget the states of the calibration text, which fill memory."""
        self.calibration = self.dense = None
        self.make_pruner = _ended

    def _replay(self, index: int, last: int) -> None:
        if self.dense is not None and index < last:
            with self.model.block(index) as block:
                self.dense.advance(index, block)
        if index in self.skipped:
            return
        with self.model.block(index, self.ledger.weights(index, self.model)) as block:
            self.prepare_block(index, block)
            self.probe.advance(index, block)
            if self.calibration is not None and index < last:
                self.calibration.advance(index, block)

    def _skip(self, index: int) -> BlockReport:
        if self.dense is not None:
            with self.model.block(index) as block:
                self.dense.advance(index, block)
        self.ledger.save(index, BlockResult(), self.model)
        return self.ledger.record(index, BlockResult(), 0.0)

    def _prune_block(self, index: int, last: int) -> BlockReport:
        started = time.perf_counter()
        with self.model.block(index) as block:
            pruner = self.make_pruner(index, block)
            result = pruner.prune()
            self.ledger.save(index, result, self.model)
            self.probe.advance(index, block)
            if self.calibration is not None and index < last:
                self._advance(pruner, self.calibration)
        devices.synchronize(self.model.device)
        seconds = time.perf_counter() - started
        return self.ledger.record(index, result, seconds)

    def _advance(self, pruner: BlockPruner, calibration: Activations) -> None:
        started = time.perf_counter()
        pruner.advance(calibration)
        devices.synchronize(self.model.device)
        if not pruner.advances_plainly:
            return
        self.forward_seconds += time.perf_counter() - started
        self.blocks_forwarded += 1


def _ended(_index: int, _block: nn.Module) -> BlockPruner:
    raise AssertionError("the walk has ended")


def forward(
    model: StreamedModel,
    states: Activations | None,
    block_done: Callable[[int], None],
    prepare: Callable[[int, nn.Module], None] = lambda _index, _block: None,
    skipped: Collection[int] = (),
) -> None:
    """Move the states, if any, through all blocks but the skipped ones; `prepare` may change a block's weights for this once."""
    for index in range(len(model.blocks)):
        if index not in skipped:
            with model.block(index) as block:
                prepare(index, block)
                if states is not None:
                    states.advance(index, block)
        block_done(index)


def observe(
    model: StreamedModel,
    states: Activations | None,
    needs: Collection[str],
    visit: Callable[[int, Sequence[tuple[InputGroup, Stats]]], None],
    block_done: Callable[[int], None],
) -> None:
    """Show the inputs of every block of the dense model, with their statistics, to `visit(block, [(group, stats), ...])`.

    Without states no forward pass is made and the statistics are empty.
    """
    last = len(model.blocks) - 1
    for index in range(last + 1):
        with model.block(index) as block:
            groups = input_groups(block, model.family, model.config)
            seen = [Stats(tokens=0) for _ in groups]
            if states is not None:
                seen = record(index, block, groups, states, [needs] * len(groups))
            visit(index, list(zip(groups, seen, strict=True)))
            if states is not None and index < last:
                states.advance(index, block)
        block_done(index)
