"""`UnitGroup`: the key-value groups or neurons of one block, as what must go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pruning_core.families.base import Family
from pruning_core.model.matrix import Matrix
from pruning_core.spec.unit_method import InnerKind
from pruning_core.structure.layout import Layout


@dataclass(frozen=True)
class UnitGroup:
    """Units of one kind in one attention or feed-forward.

    Attributes:
        kind: Key-value groups or neurons.
        part: Which of the block's feed-forwards: an expert's number, else empty.
        writers: Matrices that have rows for each unit: q, k and v, or gate and up.
        readout: The matrix that has columns for each unit: o, or down.
        size: How many units there are.
    """

    kind: InnerKind
    part: str
    writers: tuple[Matrix, ...]
    readout: Matrix
    size: int

    @property
    def name(self) -> str:
        """Name within the block, for reports and for what is decided."""
        return f"{self.kind}/{self.part}" if self.part else self.kind

    def channels(self, units: torch.Tensor) -> torch.Tensor:
        """Return the read-out's input channels of some units, int64, in the order of the units."""
        return spread(units, self.readout.shape[1] // self.size)

    def zero(self, dropped: torch.Tensor) -> None:
        """Write zeros into everything that belongs to some units, in place.

        Args:
            dropped: int64, units.
        """
        for writer in self.writers:
            rows = spread(dropped, writer.shape[0] // self.size)
            writer.view[rows] = 0
            if writer.bias is not None:
                writer.bias[rows] = 0
        self.readout.view[:, self.channels(dropped)] = 0


def spread(units: torch.Tensor, each: int) -> torch.Tensor:
    """Return the entries of some units that have `each` consecutive ones, int64."""
    return (units[:, None] * each + torch.arange(each, device=units.device)).flatten()


def kept(dropped: Sequence[int] | torch.Tensor, size: int) -> torch.Tensor:
    """Return the units that stay, int64, ascending."""
    stays = torch.ones(size, dtype=torch.bool)
    stays[torch.as_tensor(dropped, dtype=torch.int64, device="cpu")] = False
    return stays.nonzero().flatten()


def unit_groups(
    matrices: Mapping[str, Matrix], family: Family, layout: Layout
) -> tuple[UnitGroup, ...]:
    """Return the unit groups of a block, attention first.

    Args:
        matrices: The block's matrices by name.
        family: Of the model.
        layout: Of the checkpoint.
    """
    attention, mlp = family.attention, family.feedforward
    writers = (attention.queries, attention.keys, attention.values)
    heads = UnitGroup(
        "kv_groups",
        "",
        tuple(matrices[name] for name in writers),
        matrices[attention.output],
        layout.sizes.kv_groups,
    )
    prefix, star, suffix = mlp.output.partition("*")
    parts = [""]
    if star:
        parts = [
            name.removeprefix(prefix).removesuffix(suffix)
            for name in matrices
            if name.startswith(prefix) and name.endswith(suffix)
        ]
    return heads, *(
        UnitGroup(
            "neurons",
            part,
            tuple(matrices[name.replace("*", part)] for name in mlp.inputs),
            matrices[mlp.output.replace("*", part)],
            layout.sizes.neurons,
        )
        for part in parts
    )


def zero_residual(
    matrices: Mapping[str, Matrix], family: Family, dropped: torch.Tensor, *, readers_only: bool
) -> None:
    """Write zeros where a block's matrices read or write some residual dimensions, in place.

    Args:
        matrices: The block's matrices by name.
        family: Of the model.
        dropped: int64, residual dimensions.
        readers_only: Leave what writes them.
    """
    writers = {_pattern(family.attention.output), _pattern(family.feedforward.output)}
    for name, matrix in matrices.items():
        if not writers & {_pattern(name)}:
            matrix.view[:, dropped] = 0
        elif not readers_only:
            matrix.view[dropped] = 0
            if matrix.bias is not None:
                matrix.bias[dropped] = 0


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
