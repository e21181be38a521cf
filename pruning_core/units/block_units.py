"""The units of one block as a method scores them: which inputs it must see, and every group with what was seen of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning_core.families.base import Family
from pruning_core.model.matrix import InputGroup, Matrix, input_groups
from pruning_core.numerics.input_statistics import Stats
from pruning_core.structure.layout import Layout
from pruning_core.units.candidates import Candidates, candidates
from pruning_core.units.unit_groups import UnitGroup, unit_groups


@dataclass(frozen=True)
class BlockUnits:
    """Some of the units of one block.

    Attributes:
        inputs: Inputs of the block's matrices, in order of execution.
        matrices: All of its matrices, by name.
        by_readout: The units that are looked at, by name of their read-out.
    """

    inputs: Sequence[InputGroup]
    matrices: Mapping[str, Matrix]
    by_readout: Mapping[str, UnitGroup]

    @classmethod
    def of(
        cls,
        block: nn.Module,
        family: Family,
        config: Any,
        layout: Layout,
        looked_at: Callable[[UnitGroup], bool],
    ) -> BlockUnits:
        """Return those of a block's units that `looked_at` is true of."""
        inputs = input_groups(block, family, config)
        matrices = {matrix.name: matrix for group in inputs for matrix in group.matrices}
        units = unit_groups(matrices, family, layout)
        return cls(
            inputs, matrices, {group.readout.name: group for group in units if looked_at(group)}
        )

    def read_from(self, group: InputGroup) -> UnitGroup | None:
        """Return the units whose read-out reads this input."""
        names = (matrix.name for matrix in group.matrices)
        return next((self.by_readout[name] for name in names if name in self.by_readout), None)

    def written_from(self, group: InputGroup) -> bool:
        """Tell whether matrices that write units read this input."""
        names = {matrix.name for matrix in group.matrices}
        return any(
            names & {writer.name for writer in units.writers} for units in self.by_readout.values()
        )

    def asked(
        self, group: InputGroup, of_readouts: frozenset[str], of_writers: frozenset[str]
    ) -> frozenset[str]:
        """Return the statistics that a score reads of an input.

        Args:
            group: The input.
            of_readouts: What the score reads where it feeds read-outs.
            of_writers: What the score reads where it feeds the matrices that write units.
        """
        read = of_readouts if self.read_from(group) is not None else frozenset()
        return read | (of_writers if self.written_from(group) else frozenset())

    def candidates(
        self,
        units: UnitGroup,
        seen: Mapping[str, Stats],
        divergence: torch.Tensor | None,
        block: int,
    ) -> Candidates:
        """Return the units of one group as a method sees them.

        Args:
            units: The group.
            seen: Statistics by name of an input's first matrix; nothing is known of an input that is not there.
            divergence: Between the attention of key-value groups, [size, size], if it is known.
            block: Number of the block.
        """
        writers = {writer.name for writer in units.writers}
        at_readout = at_writers = Stats(tokens=0)
        for group in self.inputs:
            names = {matrix.name for matrix in group.matrices}
            stats = seen.get(group.matrices[0].name, Stats(tokens=0))
            if units.readout.name in names:
                at_readout = stats
            if names & writers:
                at_writers = stats
        return candidates(units, at_readout, at_writers, divergence, block)
