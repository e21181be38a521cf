"""The pruning of one block by units: choice, zeros, fit of what is left, module by module in network order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import nn

from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, Matrix
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.least_squares import Moments
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.block_result import BlockResult
from pruning_core.prune.unit_fit import BlockFit, readout_error
from pruning_core.prune.unit_inputs import UnitInputs
from pruning_core.spec.report_parts.removal import UnitReport
from pruning_core.units.block_units import BlockUnits
from pruning_core.units.unit_groups import UnitGroup, kept, zero_residual


@dataclass
class UnitPruner:
    """The pruning of one block.

    Attributes:
        model: The model that the block belongs to.
        plan: What goes.
        calibration: States of the calibration windows before the block, or None where nothing reads them.
        dense: Those of the dense model, where something is fitted to it.
        index: Which block.
        module: Its module, with dense weights at first.
        prepare_block: Changes its norms to what plain slicing leaves of them, once the dense states have passed.
    """

    model: StreamedModel
    plan: UnitPlan
    calibration: Activations | None
    dense: Activations | None
    index: int
    module: nn.Module
    prepare_block: Callable[[int, nn.Module], None] = lambda _index, _module: None
    _dropped: dict[str, torch.Tensor] = field(default_factory=dict)
    _reports: list[UnitReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._units = BlockUnits.of(
            self.module, self.model.family, self.model.config, self.plan.layout, self._loses
        )
        self._fit = BlockFit(self.model, self.plan, self.index)

    def prune(self) -> BlockResult:
        """Take the units of the block out by zeros, fit what is left, and return what became of it."""
        self._inputs = UnitInputs(
            self.model,
            self.plan,
            self._units,
            self.index,
            self.module,
            self.calibration,
            self.dense,
        )
        self.prepare_block(self.index, self.module)
        self._zero_decided()
        for stage in self._inputs.stages():
            self._inputs.see(stage)
            for group in stage:
                self._finish(group)
                if self.calibration is not None:
                    self.calibration.alive()
        for units in self._units.by_readout.values():
            if units.name not in self._dropped:
                self._drop(units, Stats(tokens=0))
        return BlockResult(
            changed=self._changed(),
            units=self._reports,
            dropped=self._dropped,
            warnings=self._inputs.warnings,
        )

    @property
    def advances_plainly(self) -> bool:
        """Whether the pruned block is computed as a whole; the first one is, to know what a pass costs."""
        return not self._inputs.replays or self.index == 0

    def advance(self, calibration: Activations) -> None:
        """Move the calibration states over the pruned block."""
        with ExitStack() as stack:
            for replay in () if self.advances_plainly else self._inputs.replays:
                stack.enter_context(replay())
            calibration.advance(self.index, self.module)

    def _loses(self, units: UnitGroup) -> bool:
        decided = (self.index, units.name) in self.plan.inner
        return decided or (self.plan.score is not None and self.plan.n_drop(units, self.index) > 0)

    def _zero_decided(self) -> None:
        """Write the zeros that need no choice: residual dimensions, whole blocks, single rows and columns."""
        matrices, family = self._units.matrices, self.model.family
        if self.plan.hidden is not None:
            zero_residual(matrices, family, self.plan.hidden, readers_only=False)
        elif self.plan.hidden_by_block:
            dropped = self.plan.hidden_by_block[self.index]
            zero_residual(matrices, family, dropped, readers_only=True)
        for name, matrix in matrices.items():
            if self.index in self.plan.layers:
                matrix.zero()
            if (self.index, name) in self.plan.low_activation:
                masks = self.plan.low_activation[self.index, name]
                matrix.view[masks.rows] = 0
                matrix.view[:, masks.columns] = 0
                if matrix.bias is not None:
                    matrix.bias[masks.biases] = 0

    def _finish(self, group: InputGroup) -> None:
        """Fit a group's matrices, choose the units that go, zero them, and fit the read-out to that."""
        units = self._units.read_from(group)
        for matrix in group.matrices:
            if self.plan.fits_modules or (units is None and self._inputs.fits(group)):
                self._fit.fit(matrix, self._wanted(matrix))
        if units is not None:
            self._drop(units, self._inputs.stats(group))

    def _wanted(self, matrix: Matrix) -> Moments:
        moments = self._inputs.moments(matrix)
        assert moments is not None
        return moments

    def _drop(self, units: UnitGroup, stats: Stats) -> None:
        """Choose units of a group, zero them, and make up for them where the plan says so."""
        readout, folds = units.readout, self._inputs.folds_mean(units)
        before = readout.read()
        moments = self._inputs.moments(readout)
        dropped = self._dropped[units.name] = self._choice(units)
        if moments is None and (self.plan.refit is not None or folds):
            bias = None if readout.bias is None else readout.bias.float().clone()
            moments = Moments.of_same_path(before, bias, stats)
        if folds:
            self._fit.fold_mean(units, stats, dropped, before)
        units.zero(dropped)
        error = readout_error(readout, before, stats, moments)
        report = UnitReport(
            kind=units.kind,
            part=units.part,
            of=units.size,
            removed=len(dropped),
            digest=digest_of(dropped),
            error=error,
        )
        if self.plan.ridge is not None:
            assert moments is not None
            channels = kept(units.channels(dropped), readout.shape[1])
            ridge = self._fit.fit(readout, moments, channels.to(dropped.device))
            after = readout_error(readout, before, stats, moments)
            fitted = {"error": after, "error_before_refit": error, "ridge": ridge}
            report = report.model_copy(update=fitted)
        self._reports.append(report)

    def _choice(self, units: UnitGroup) -> torch.Tensor:
        decided = self.plan.inner.get((self.index, units.name))
        if decided is not None:
            return decided.to(self.model.device)
        assert self.plan.score is not None
        group = self._units.candidates(
            units, self._inputs.by_name, self._inputs.divergence, self.index
        )
        return self.plan.score.drop(group, self.plan.n_drop(units, self.index))

    def _changed(self) -> dict[str, torch.Tensor]:
        """Return the parameters of the block's matrices, by stored name."""
        prefix = self.model.block_prefix(self.index)
        places = map(self.model.family.location, self._units.matrices)
        names = dict.fromkeys(name for place in places for name in (place.weight, place.bias))
        parameters = dict(self.module.named_parameters())
        changed: dict[str, torch.Tensor] = {}
        for name in names:
            stored = self.model.files.stored_name(prefix + name)
            if stored is not None and name in parameters:
                changed[stored] = parameters[name]
        return changed


def digest_of(dropped: torch.Tensor) -> str:
    """Return sha256 of units' numbers."""
    content = dropped.to("cpu", torch.int32).contiguous().numpy().tobytes()
    return "sha256:" + hashlib.sha256(content).hexdigest()
