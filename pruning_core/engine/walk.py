"""The walk: block by block, record statistics with dense weights, prune, store, and go on with pruned outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import nn

from pruning_core.engine import device as devices
from pruning_core.engine.activations import Activations
from pruning_core.engine.blocks import run
from pruning_core.engine.checkpoint import Ledger
from pruning_core.engine.matrix import InputGroup, Matrix, input_groups
from pruning_core.engine.model import StreamedModel
from pruning_core.engine.numerics import all_finite
from pruning_core.engine.patterns import Selector
from pruning_core.engine.registry import Element
from pruning_core.engine.stats import Collector, Stats
from pruning_core.errors import NumericalFailure
from pruning_core.spec.methods import ElementMethod
from pruning_core.spec.report import BlockReport, MatrixReport

NEVER_REACHED = "block {}, {}: the calibration text never reached its input; its weights were compared by magnitude"


@dataclass
class Walk:
    """One pass over all blocks.

    Attributes:
        model: The dense model.
        element: The method's implementation.
        params: The method's parameters.
        select: Ratio and pattern.
        ledger: Finished blocks; a block that it holds is replayed, not pruned again.
        calibration: States of the calibration windows, or None for a method without statistics.
        probe: States of a few tokens that end as the logits of the pruned model.
        forward_seconds: Time spent in plain forward passes over the calibration windows.
        blocks_forwarded: Blocks that `forward_seconds` covers.
    """

    model: StreamedModel
    element: Element
    params: ElementMethod
    select: Selector
    ledger: Ledger
    calibration: Activations | None
    probe: Activations
    forward_seconds: float = 0.0
    blocks_forwarded: int = 0

    def run(self, block_done: Callable[[int, BlockReport | None], None]) -> None:
        """Prune every block that the ledger lacks; call `block_done(index, report or None if replayed)` after each."""
        last = len(self.model.blocks) - 1
        for index in range(last + 1):
            report = None
            if index in self.ledger:
                weights = self.ledger.weights(index, self.model)
                with self.model.block(index, weights) as block:
                    self._propagate(index, block, last)
            else:
                started = time.perf_counter()
                with self.model.block(index) as block:
                    groups = input_groups(block, self.model.family, self.model.config)
                    matrices, warnings = self._prune(index, block, groups)
                    self.ledger.save(index, self._weights(index, groups), self.model)
                    self._propagate(index, block, last)
                devices.synchronize(self.model.device)
                seconds = time.perf_counter() - started
                report = self.ledger.record(index, matrices, seconds, warnings)
            block_done(index, report)

    def _weights(self, index: int, groups: list[InputGroup]) -> dict[str, torch.Tensor]:
        """Return the weights of the pruned modules by stored name; parts of a fused one share it."""
        prefix = self.model.block_prefix(index)
        return {
            self._stored_name(prefix, matrix).partition("[")[0]: matrix.module.get_parameter(
                "weight"
            )
            for group in groups
            for matrix in group.matrices
        }

    def _prune(
        self, index: int, block: nn.Module, groups: list[InputGroup]
    ) -> tuple[list[MatrixReport], list[str]]:
        """Prune a block's matrices; return what became of them, and what the user must know."""
        prefix = self.model.block_prefix(index)
        reports: list[MatrixReport] = []
        warnings = []
        for group, found in zip(groups, self._statistics(index, block, groups), strict=True):
            stats = found
            if self.element.needs and found.silent:
                warnings.append(NEVER_REACHED.format(index, group.matrices[0].name))
                stats = found.with_unit_input()
            reports += [self._prune_matrix(prefix, matrix, stats) for matrix in group.matrices]
        return reports, warnings

    def _prune_matrix(self, prefix: str, matrix: Matrix, stats: Stats) -> MatrixReport:
        name = self._stored_name(prefix, matrix)
        self.select.check(name, matrix.shape)
        weight, keep = self.element.prune(matrix.read(), stats, self.select, self.params)
        if not all_finite(weight):
            raise NumericalFailure(f"{name}: the method produced NaN or infinity")
        stored = self.model.files.dtype(name.partition("[")[0])
        matrix.write(weight, stored=stored)
        removed = keep.numel() - int(keep.sum())
        return MatrixReport(
            name=name,
            shape=matrix.shape,
            zeros=matrix.view.numel() - int(matrix.view.count_nonzero()),
            removed=removed,
            sparsity=removed / keep.numel(),
        )

    def _stored_name(self, prefix: str, matrix: Matrix) -> str:
        path, bracket, part = matrix.name.partition("[")
        stored = self.model.files.stored_name(f"{prefix}{path}.weight")
        assert stored is not None
        return stored + bracket + part

    def _statistics(self, index: int, block: nn.Module, groups: list[InputGroup]) -> list[Stats]:
        if self.calibration is None or not self.element.needs:
            return [Stats(tokens=0) for _ in groups]
        collectors = [
            Collector(self.element.needs, group.matrices[0].shape[1], self.model.device)
            for group in groups
        ]
        with _collecting(groups, collectors):
            for hidden, call in self.calibration.inputs(index):
                with suppress(_EnoughError):
                    run(block, hidden, call)
        return [
            collector.stats(f"block {index}, {group.matrices[0].name}")
            for group, collector in zip(groups, collectors, strict=True)
        ]

    def _propagate(self, index: int, block: nn.Module, last: int) -> None:
        self.probe.advance(index, block)
        if self.calibration is None or index == last:
            return
        started = time.perf_counter()
        self.calibration.advance(index, block)
        devices.synchronize(self.model.device)
        self.forward_seconds += time.perf_counter() - started
        self.blocks_forwarded += 1


class _EnoughError(Exception):
    """The last input of the block was seen; what comes after it changes no statistic."""


@contextmanager
def _collecting(groups: list[InputGroup], collectors: list[Collector]) -> Iterator[None]:
    """Feed collectors from the modules' inputs; the last one ends the block's forward pass, if it always runs."""
    with ExitStack() as stack:
        for group, collector in zip(groups, collectors, strict=True):
            final = group is groups[-1] and group.always_runs

            def hook(
                _module: nn.Module,
                args: tuple[torch.Tensor, ...],
                collector: Collector = collector,
                final: bool = final,
            ) -> None:
                collector.update(args[0])
                if final:
                    raise _EnoughError

            stack.callback(group.first.register_forward_pre_hook(hook).remove)
        yield
