"""What is seen of a block's inputs while its units are pruned: statistics, the dense model's outputs, attention of heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby

import torch
from torch import nn

from pruning_core.model.cached_module import Replay
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, Matrix
from pruning_core.model.recorder import record
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.least_squares import Moments
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.block_matrices import NEVER_REACHED
from pruning_core.prune.dense_targets import DenseTargets, cross_moments
from pruning_core.units.attention_divergence import head_divergence
from pruning_core.units.block_units import BlockUnits
from pruning_core.units.unit_groups import UnitGroup


class UnitInputs:
    """Inputs of one block's matrices, looked at stage by stage while the matrices before them are pruned.

    Args:
        model: The model that the block belongs to.
        plan: What goes.
        units: The units of the block that go.
        index: Which block.
        module: Its module, with dense weights: the dense states pass over it at once.
        calibration: States of the calibration windows before the block, or None where nothing reads them.
        dense: Those of the dense model, where something is fitted to it.
    """

    def __init__(
        self,
        model: StreamedModel,
        plan: UnitPlan,
        units: BlockUnits,
        index: int,
        module: nn.Module,
        calibration: Activations | None,
        dense: Activations | None,
    ) -> None:
        self.warnings: list[str] = []
        self._model, self._plan, self._units = model, plan, units
        self._index, self._module, self._calibration = index, module, calibration
        self._stats: dict[str, Stats] = {}
        self._moments: dict[str, Moments] = {}
        self._replays: dict[str, Replay] = {}
        self.divergence: torch.Tensor | None = None
        self._targets: DenseTargets | None = None
        if dense is not None:
            fitted = [group for group in units.inputs if self.fits(group)]
            self._targets = DenseTargets.of(index, module, fitted, dense)

    @property
    def replays(self) -> Sequence[Replay]:
        """The modules whose outputs are known for all calibration states."""
        return tuple(self._replays.values())

    @property
    def by_name(self) -> dict[str, Stats]:
        """Statistics by name of an input's first matrix."""
        return self._stats

    def stats(self, group: InputGroup) -> Stats:
        """Return the statistics of an input that was seen."""
        return self._stats[group.matrices[0].name]

    def moments(self, matrix: Matrix) -> Moments | None:
        """Return what a fit to the dense model's outputs needs, where a matrix is fitted to them."""
        return self._moments.get(matrix.name)

    def fits(self, group: InputGroup) -> bool:
        """Tell whether matrices that read an input are fitted."""
        if self._plan.fits_modules:
            return True
        if self._plan.refit is None:
            return False
        return self._plan.hidden is not None or self._units.read_from(group) is not None

    def folds_mean(self, units: UnitGroup) -> bool:
        """Tell whether the mean output of what goes moves into the read-out's bias."""
        return self._plan.params.keeps_means and units.readout.bias is not None

    def stages(self) -> list[list[InputGroup]]:
        """Return the inputs to look at; together, unless later ones see what is fitted before them."""
        groups = [group for group in self._units.inputs if self.fits(group) or self._needs(group)]
        if self._plan.ridge is None:
            return [groups] if groups else []
        return [list(stage) for _, stage in groupby(groups, key=lambda group: group.stage)]

    def see(self, stage: Sequence[InputGroup]) -> None:
        """Take the statistics of a stage's inputs; with the dense model's outputs where something is fitted to them."""
        if self._calibration is None:
            self._stats |= {group.matrices[0].name: Stats(tokens=0) for group in stage}
            return
        if self._compares_heads(stage):
            self.divergence = head_divergence(
                self._index, self._module, self._model.family, self._calibration, self._plan.layout
            )
        with self._passing(stage, self._calibration):
            for group in stage:
                if self._targets is not None and self.fits(group):
                    self._see_both(group, self._targets, self._calibration)
            others = [group for group in stage if group.matrices[0].name not in self._stats]
            if others:
                needs = [self._needs(group) for group in others]
                seen = record(self._index, self._module, others, self._calibration, needs)
                for group, stats in zip(others, seen, strict=True):
                    self._stats[group.matrices[0].name] = stats
                    if stats.dead_input:
                        name = group.matrices[0].name
                        self.warnings.append(NEVER_REACHED.format(self._index, name))

    def _needs(self, group: InputGroup) -> set[str]:
        """Return the statistics that an input is asked for."""
        if self._calibration is None:
            return set()
        needs: set[str] = set()
        score = self._plan.score
        if score is not None:
            needs |= self._units.asked(group, score.needs, score.input_needs)
        units = self._units.read_from(group)
        if units is not None:
            exact = self._plan.refit is not None or self.folds_mean(units)
            needs |= {"gram", "column_mean"} if exact else {"sketch"}
            needs |= self._held if self._plan.refit is not None else set()
        return needs

    @property
    def _held(self) -> set[str]:
        """The statistic that a ridge is found by, if one is to be found."""
        return {"held"} if self._plan.ridge == "auto" else set()

    def _compares_heads(self, stage: Sequence[InputGroup]) -> bool:
        """Tell whether a stage runs the attention whose heads are compared."""
        kinds = {units.kind for units in map(self._units.read_from, stage) if units is not None}
        return "kv_groups" in kinds and self._plan.params.compares_heads

    def _see_both(self, group: InputGroup, targets: DenseTargets, calibration: Activations) -> None:
        needs = self._needs(group) - {"sketch"} | self._held  # the Gram matrix is exact
        both = cross_moments(
            self._index, self._module, group, calibration, targets.pop(group), needs
        )
        for matrix in group.matrices:
            self._moments[matrix.name] = both.moments(group, matrix, targets.weights[matrix.name])
        self._stats[group.matrices[0].name] = both.stats

    @contextmanager
    def _passing(self, stage: Sequence[InputGroup], calibration: Activations) -> Iterator[None]:
        """Let passes go on from what earlier ones kept, and keep what a last matrix is given once all before it are final."""
        with ExitStack() as stack:
            for replay in self._replays.values():
                stack.enter_context(replay())
            for name, replay in self._beginning(stage, len(calibration.batches)).items():
                stack.enter_context(replay.watching())
                self._replays[name] = replay
            yield

    def _beginning(self, stage: Sequence[InputGroup], batches: int) -> dict[str, Replay]:
        """Return what can be kept from a stage's pass on, by name of its last matrix."""
        if self._plan.ridge is None:
            return {}
        family = self._model.family
        replays: dict[str, Replay] = {}
        order = {
            matrix.name: group.stage for group in self._units.inputs for matrix in group.matrices
        }
        for last in [family.attention.output] + [family.feedforward.output] * (not family.experts):
            module = last.rpartition(".")[0]  # OPT's feed-forward has no module of its own
            if module and last not in self._replays and stage[0].stage >= order[last]:
                replays[last] = Replay(
                    self._module.get_submodule(module),
                    self._module.get_submodule(last),
                    batches,
                    in_tuple=last == family.attention.output,
                )
        return replays
