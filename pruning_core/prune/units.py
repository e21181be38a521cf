"""The pruning of one block by units: statistics, choice, zeros, fit of what is left, module by module in network order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import nn

from pruning_core.model.attention_divergence import head_divergence
from pruning_core.model.cached_module import Replay
from pruning_core.model.candidates import Candidates, candidates
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, Matrix, input_groups
from pruning_core.model.recorder import record
from pruning_core.model.streamed import StreamedModel
from pruning_core.model.unit_groups import UnitGroup, kept, unit_groups, zero_residual
from pruning_core.numerics.least_squares import Moments, fit, held_out_ridge, relative_error
from pruning_core.numerics.statistics import Stats
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.block import NEVER_REACHED
from pruning_core.prune.dense_targets import DenseTargets, cross_moments
from pruning_core.prune.matrix import output_error
from pruning_core.spec.composition import Ridge
from pruning_core.spec.report import MatrixReport, ReconstructionReport, UnitReport
from pruning_core.spec.unit_methods import GOA, SPARED


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
        ready: Changes its norms to what plain slicing leaves of them, once the dense states have passed.
        units: What went, group by group.
        dropped: The units that went, int64, by group.
        warnings: What the user must know.
    """

    model: StreamedModel
    plan: UnitPlan
    calibration: Activations | None
    dense: Activations | None
    index: int
    module: nn.Module
    ready: Callable[[int, nn.Module], None] = lambda _index, _module: None
    units: list[UnitReport] = field(default_factory=list)
    dropped: dict[str, torch.Tensor] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    reports: Sequence[MatrixReport] = ()
    orders: Mapping[str, torch.Tensor] = field(default_factory=dict)
    reconstruction: ReconstructionReport | None = None
    _taps: DenseTargets | None = None
    _at: dict[str, Stats] = field(default_factory=dict)
    _moments: dict[str, Moments] = field(default_factory=dict)
    _heads: torch.Tensor | None = None
    _replays: dict[str, Replay] = field(default_factory=dict)

    def __post_init__(self) -> None:
        family, config = self.model.family, self.model.config
        self._groups = input_groups(self.module, family, config)
        self._matrices = {one.name: one for group in self._groups for one in group.matrices}
        found = unit_groups(self._matrices, family, self.plan.layout)
        self._unit_groups = {one.readout.name: one for one in found if self._loses(one)}

    def prune(self) -> None:
        """Take the units of the block out by zeros, and fit what is left."""
        if self.dense is not None:
            fitted = [group for group in self._groups if self._fits(group)]
            self._taps = DenseTargets.of(self.index, self.module, fitted, self.dense)
        self.ready(self.index, self.module)
        self._zero_decided()
        for stage in self._stages():
            self._see(stage)
            for group in stage:
                self._finish(group)
                if self.calibration is not None:
                    self.calibration.alive()
        for units in self._unit_groups.values():
            if units.name not in self.dropped:
                self._drop(units, Stats(tokens=0))

    @property
    def advances_plainly(self) -> bool:
        """Whether the pruned block is computed as a whole; the first one is, to know what a pass costs."""
        return not self._replays or self.index == 0

    def advance(self) -> None:
        """Move the calibration states over the pruned block."""
        assert self.calibration is not None
        with ExitStack() as stack:
            for replay in () if self.advances_plainly else self._replays.values():
                stack.enter_context(replay())
            self.calibration.advance(self.index, self.module)

    def changed(self) -> dict[str, torch.Tensor]:
        """Return the parameters of the block's matrices, by stored name."""
        prefix = self.model.block_prefix(self.index)
        places = map(self.model.family.place, self._matrices)
        names = dict.fromkeys(name for place in places for name in (place.weight, place.bias))
        parameters = dict(self.module.named_parameters())
        found: dict[str, torch.Tensor] = {}
        for name in names:
            stored = self.model.files.stored_name(prefix + name)
            if stored is not None and name in parameters:
                found[stored] = parameters[name]
        return found

    def _loses(self, group: UnitGroup) -> bool:
        decided = (self.index, group.name) in self.plan.inner
        return decided or (self.plan.score is not None and self._n_drop(group) > 0)

    def _n_drop(self, group: UnitGroup) -> int:
        n_drop = group.size - self.plan.sizes.of(group.kind)
        params = self.plan.params
        if not isinstance(params, GOA) or params.blocks == "all":
            return n_drop
        blocks = self.plan.layout.sizes.layers
        touched = range(SPARED[0], blocks - SPARED[1])
        if self.index not in touched:
            return 0
        return min(group.size - 1, round(n_drop * blocks / len(touched)))

    def _zero_decided(self) -> None:
        """Write the zeros that need no choice: residual dimensions, single rows and columns."""
        family = self.model.family
        if self.plan.hidden is not None:
            zero_residual(self._matrices, family, self.plan.hidden, readers_only=False)
        elif self.plan.hidden_by_block:
            dropped = self.plan.hidden_by_block[self.index]
            zero_residual(self._matrices, family, dropped, readers_only=True)
        for name, matrix in self._matrices.items():
            if self.index in self.plan.layers:
                matrix.view[:] = 0
                if matrix.bias is not None:
                    matrix.bias[:] = 0
            if (self.index, name) in self.plan.quiet:
                masks = self.plan.quiet[self.index, name]
                matrix.view[masks.rows] = 0
                matrix.view[:, masks.columns] = 0
                if matrix.bias is not None:
                    matrix.bias[masks.biases] = 0

    def _stages(self) -> list[list[InputGroup]]:
        """Return the input groups to look at; together, unless later ones see what is fitted before them."""
        groups = [group for group in self._groups if self._fits(group) or self._needs(group)]
        if not self._fitting:
            return [groups] if groups else []
        return [list(stage) for _, stage in groupby(groups, key=lambda group: group.stage)]

    @property
    def _fitting(self) -> bool:
        return self.plan.refit is not None or self.plan.goa is not None

    def _fits(self, group: InputGroup) -> bool:
        """Tell whether matrices of a group are fitted."""
        if self.plan.goa is not None:
            return True
        if self.plan.refit is None:
            return False
        return self.plan.hidden is not None or self._unit_group(group) is not None

    def _unit_group(self, group: InputGroup) -> UnitGroup | None:
        """Return the units whose read-out a group holds."""
        names = (matrix.name for matrix in group.matrices)
        return next((self._unit_groups[name] for name in names if name in self._unit_groups), None)

    def _needs(self, group: InputGroup) -> set[str]:
        """Return the statistics that a group's input is asked for."""
        if self.calibration is None:
            return set()
        score = self.plan.score
        found: set[str] = set()
        units = self._unit_group(group)
        if units is not None:
            found |= score.needs if score is not None else frozenset()
            exact = self.plan.refit is not None or self._folds_mean(units)
            found |= {"gram", "column_mean"} if exact else {"sketch"}
            found |= self._held if self.plan.refit is not None else set()
        names = {matrix.name for matrix in group.matrices}
        writing = any(
            names & {writer.name for writer in one.writers} for one in self._unit_groups.values()
        )
        if score is not None and writing:
            found |= score.input_needs
        return found

    def _folds_mean(self, units: UnitGroup) -> bool:
        return self.plan.params.keeps_means and units.readout.bias is not None

    def _see(self, stage: Sequence[InputGroup]) -> None:
        """Take the statistics of a stage's inputs; with the dense model's outputs where something is fitted to them."""
        if self.calibration is None:
            self._at |= {group.matrices[0].name: Stats(tokens=0) for group in stage}
            return
        if self._watches(stage):
            self._heads = head_divergence(
                self.index, self.module, self.model.family, self.calibration, self.plan.layout
            )
        with self._passing(stage):
            for group in stage:
                if self._taps is not None and self._fits(group):
                    self._see_both(group, self._taps)
            others = [one for one in stage if one.matrices[0].name not in self._at]
            if others:
                needs = [self._needs(group) for group in others]
                found = record(self.index, self.module, others, self.calibration, needs)
                for group, stats in zip(others, found, strict=True):
                    self._warn(group, stats)
                    self._at[group.matrices[0].name] = stats

    def _see_both(self, group: InputGroup, taps: DenseTargets) -> None:
        assert self.calibration is not None
        needs = self._needs(group) - {"sketch"} | self._held  # the Gram matrix is exact
        found = cross_moments(
            self.index, self.module, group, self.calibration, taps.pop(group), needs
        )
        for matrix in group.matrices:
            self._moments[matrix.name] = found.moments(group, matrix, taps.weights[matrix.name])
        self._at[group.matrices[0].name] = found.stats

    @contextmanager
    def _passing(self, stage: Sequence[InputGroup]) -> Iterator[None]:
        """Let passes go on from what earlier ones kept, and keep what a last matrix is given once all before it are final."""
        with ExitStack() as stack:
            for replay in self._replays.values():
                stack.enter_context(replay())
            for name, replay in self._beginning(stage).items():
                stack.enter_context(replay.watching())
                self._replays[name] = replay
            yield

    def _beginning(self, stage: Sequence[InputGroup]) -> dict[str, Replay]:
        """Return what can be kept from a stage's pass on, by name of its last matrix."""
        assert self.calibration is not None
        family, found = self.model.family, {}
        order = {one.name: group.stage for group in self._groups for one in group.matrices}
        lasts = [family.attention.output] + [family.feedforward.output] * (not family.experts)
        for last in lasts if self._fitting else ():
            module = last.rpartition(".")[0]  # OPT's feed-forward has no module of its own
            if module and last not in self._replays and stage[0].stage >= order[last]:
                found[last] = Replay(
                    self.module.get_submodule(module),
                    self.module.get_submodule(last),
                    len(self.calibration.batches),
                    in_tuple=last == family.attention.output,
                )
        return found

    def _watches(self, stage: Sequence[InputGroup]) -> bool:
        """Tell whether a stage runs the attention whose heads are compared."""
        heads = any(one.kind == "kv_groups" for one in map(self._unit_group, stage) if one)
        return heads and self.plan.params.compares_heads

    def _warn(self, group: InputGroup, stats: Stats) -> None:
        if stats.dead_input:
            self.warnings.append(NEVER_REACHED.format(self.index, group.matrices[0].name))

    def _finish(self, group: InputGroup) -> None:
        """Fit a group's matrices, choose the units that go, zero them, and fit the read-out to that."""
        stats, units = self._at[group.matrices[0].name], self._unit_group(group)
        for matrix in group.matrices:
            if self.plan.goa is not None or (units is None and self._fits(group)):
                self._fit(matrix, self._moments[matrix.name], None)
        if units is not None:
            self._drop(units, stats)

    def _drop(self, units: UnitGroup, stats: Stats) -> None:
        readout = units.readout
        before = readout.read()
        moments = self._moments.get(readout.name)
        dropped = self.dropped[units.name] = self._choice(units, stats)
        if moments is None and (self.plan.refit is not None or self._folds_mean(units)):
            bias = None if readout.bias is None else readout.bias.float().clone()
            moments = Moments.of_same_path(before, bias, stats)
        if self._folds_mean(units):
            self._fold_mean(units, stats, dropped, before)
        units.zero(dropped)
        first = self._error(readout, before, stats, moments)
        report = UnitReport(
            kind=units.kind,
            part=units.part,
            of=units.size,
            removed=len(dropped),
            digest=digest_of(dropped),
            error=first,
        )
        if self._fitting:
            assert moments is not None
            channels = kept(units.channels(dropped), readout.shape[1])
            ridge = self._fit(readout, moments, channels.to(dropped.device))
            last = self._error(readout, before, stats, moments)
            fitted = {"error": last, "error_before_refit": first, "ridge": ridge}
            report = report.model_copy(update=fitted)
        self.units.append(report)

    def _choice(self, units: UnitGroup, stats: Stats) -> torch.Tensor:
        decided = self.plan.inner.get((self.index, units.name))
        if decided is not None:
            return decided.to(self.model.device)
        assert self.plan.score is not None
        group = self._candidates(units, stats)
        return self.plan.score.drop(group, self._n_drop(units))

    def _candidates(self, units: UnitGroup, stats: Stats) -> Candidates:
        return candidates(units, stats, self._writers_stats(units), self._heads, self.index)

    def _writers_stats(self, units: UnitGroup) -> Stats:
        names = {writer.name for writer in units.writers}
        for group in self._groups:
            if names & {matrix.name for matrix in group.matrices}:
                return self._at.get(group.matrices[0].name, Stats(tokens=0))
        return Stats(tokens=0)

    def _fit(self, matrix: Matrix, moments: Moments, channels: torch.Tensor | None) -> float:
        """Fit a matrix to the wanted outputs on its inputs that stay; rows of residual dimensions that go stay zero.

        Returns:
            The ridge.
        """
        writes_hidden = matrix.shape[0] == self.plan.layout.sizes.hidden and matrix.name in (
            self._readouts
        )
        if self.plan.hidden is not None and not writes_hidden:
            channels = kept(self.plan.hidden, matrix.shape[1]).to(self.model.device)
        bias = None if matrix.bias is None else matrix.bias.float()
        ridge = self._ridge
        if ridge == "auto":
            ridge = held_out_ridge(matrix.read(), bias, moments, channels)
        weight, offset = fit(matrix.read(), bias, moments, channels, ridge)
        if self.plan.hidden is not None and writes_hidden:
            weight[self.plan.hidden] = 0
            if offset is not None:
                offset[self.plan.hidden] = 0
        self._write(matrix, weight, offset)
        return ridge

    @property
    def _ridge(self) -> Ridge:
        fitted = self.plan.refit or self.plan.goa
        assert fitted is not None
        return fitted.ridge

    @property
    def _held(self) -> set[str]:
        """The statistic that a ridge is found by, if one is to be found."""
        return {"held"} if self._fitting and self._ridge == "auto" else set()

    @property
    def _readouts(self) -> set[str]:
        family = self.model.family
        return {family.attention.output, family.feedforward.output}

    def _write(self, matrix: Matrix, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        place = self.model.family.place(matrix.name)
        matrix.write(weight, stored=self._stored(place.weight))
        if bias is not None:
            assert matrix.bias is not None
            matrix.bias.copy_(bias.to(self._stored(place.bias)))

    def _stored(self, name: str) -> torch.dtype:
        stored = self.model.files.stored_name(self.model.block_prefix(self.index) + name)
        assert stored is not None
        return self.model.files.dtype(stored)

    def _fold_mean(
        self, units: UnitGroup, stats: Stats, dropped: torch.Tensor, dense: torch.Tensor
    ) -> None:
        """Move the mean output of what goes into the read-out's bias."""
        assert stats.column_mean is not None
        assert units.readout.bias is not None
        channels = units.channels(dropped)
        bias = units.readout.bias.float() + dense[:, channels] @ stats.column_mean[channels]
        place = self.model.family.place(units.readout.name)
        units.readout.bias.copy_(bias.to(self._stored(place.bias)))

    @staticmethod
    def _error(
        readout: Matrix, before: torch.Tensor, stats: Stats, moments: Moments | None
    ) -> float | None:
        if moments is None:
            return output_error(before, readout.read(), stats)
        bias = None if readout.bias is None else readout.bias.float()
        return relative_error(readout.read(), bias, moments)


def digest_of(dropped: torch.Tensor) -> str:
    """Return sha256 of units' numbers."""
    content = dropped.to("cpu", torch.int32).contiguous().numpy().tobytes()
    return "sha256:" + hashlib.sha256(content).hexdigest()
