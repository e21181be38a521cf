"""The fit of a block's matrices to what their module should put out, and the move of a mean into a bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning_core.model.matrix import Matrix
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.least_squares import Moments, fit, held_out_ridge, relative_error
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.matrix import output_error
from pruning_core.units.unit_groups import UnitGroup, kept


@dataclass(frozen=True)
class BlockFit:
    """The fits of one block.

    Attributes:
        model: The model that the block belongs to.
        plan: What goes.
        index: Which block.
    """

    model: StreamedModel
    plan: UnitPlan
    index: int

    def fit(self, matrix: Matrix, moments: Moments, channels: torch.Tensor | None = None) -> float:
        """Fit a matrix to the wanted outputs on its inputs that stay; rows of residual dimensions that go stay zero.

        Args:
            matrix: Which.
            moments: Of its inputs with the wanted outputs.
            channels: int64, its inputs that stay; None for all.

        Returns:
            The ridge.
        """
        hidden = self.plan.hidden
        writes_hidden = self._writes_hidden(matrix)
        if hidden is not None and not writes_hidden:
            channels = kept(hidden, matrix.shape[1]).to(self.model.device)
        bias = None if matrix.bias is None else matrix.bias.float()
        ridge = self.plan.ridge
        assert ridge is not None
        if ridge == "auto":
            ridge = held_out_ridge(matrix.read(), bias, moments, channels)
        weight, offset = fit(matrix.read(), bias, moments, channels, ridge)
        if hidden is not None and writes_hidden:
            weight[hidden] = 0
            if offset is not None:
                offset[hidden] = 0
        self._write(matrix, weight, offset)
        return ridge

    def fold_mean(
        self, units: UnitGroup, stats: Stats, dropped: torch.Tensor, dense: torch.Tensor
    ) -> None:
        """Move the mean output of what goes into the read-out's bias.

        Args:
            units: The group.
            stats: Of the read-out's input.
            dropped: int64, the units that go.
            dense: The read-out before, float32 [out, in].
        """
        bias = units.readout.bias
        assert stats.column_mean is not None
        assert bias is not None
        channels = units.channels(dropped)
        moved = bias.float() + dense[:, channels] @ stats.column_mean[channels]
        place = self.model.family.location(units.readout.name)
        bias.copy_(moved.to(self._stored(place.bias)))

    def _writes_hidden(self, matrix: Matrix) -> bool:
        family = self.model.family
        readouts = {family.attention.output, family.feedforward.output}
        return matrix.shape[0] == self.plan.layout.sizes.hidden and matrix.name in readouts

    def _write(self, matrix: Matrix, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        place = self.model.family.location(matrix.name)
        matrix.write(weight, stored=self._stored(place.weight))
        if bias is not None:
            assert matrix.bias is not None
            matrix.bias.copy_(bias.to(self._stored(place.bias)))

    def _stored(self, name: str) -> torch.dtype:
        return self.model.files.dtype(self.model.stored(self.index, name))


def readout_error(
    readout: Matrix, before: torch.Tensor, stats: Stats, moments: Moments | None
) -> float | None:
    """Return the relative error of a read-out's output, from moments where there are any; None where nothing is known.

    Args:
        readout: The read-out as it is.
        before: As it was, float32 [out, in].
        stats: Of its input.
        moments: Of its input with the wanted outputs.
    """
    if moments is None:
        return output_error(before, readout.read(), stats)
    bias = None if readout.bias is None else readout.bias.float()
    return relative_error(readout.read(), bias, moments)
