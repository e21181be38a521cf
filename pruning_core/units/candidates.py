"""`Candidates`: the units of one group as a method sees them: tensors and numbers, no module."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from pruning_core.numerics.input_statistics import Stats
from pruning_core.spec.unit_method import InnerKind
from pruning_core.units.unit_groups import UnitGroup


@dataclass(frozen=True)
class Candidates:
    """Units of one attention or feed-forward.

    Attributes:
        kind: Key-value groups or neurons.
        size: How many there are.
        readout: float32 [out, channels], the matrix that reads them; a unit's channels lie side by side.
        at_readout: Statistics of its input.
        writers: float32 [rows, in] each: q, k and v, or gate and up; a unit's rows lie side by side.
        biases: Of the writers, [rows] each or None.
        at_writers: Statistics of their input.
        divergence: float32 [size, size], between the attention of groups; None unless asked for.
        seed: Another number for every group of the model.
    """

    kind: InnerKind
    size: int
    readout: torch.Tensor
    at_readout: Stats
    writers: tuple[torch.Tensor, ...]
    biases: tuple[torch.Tensor | None, ...]
    at_writers: Stats
    divergence: torch.Tensor | None = None
    seed: int = 0

    def per_unit(self, values: torch.Tensor) -> torch.Tensor:
        """Return one value per channel, or per row of a writer, as [size, channels of a unit]."""
        return values.reshape(self.size, -1)

    def mean_sizes(self) -> torch.Tensor:
        """Return the mean |x_j| of the read-out's input over each unit's channels and all tokens, [size]."""
        assert self.at_readout.column_mean_abs is not None
        return self.per_unit(self.at_readout.column_mean_abs).mean(dim=1)


def candidates(
    units: UnitGroup, stats: Stats, at_writers: Stats, heads: torch.Tensor | None, block: int
) -> Candidates:
    """Return the units of one group as a method sees them.

    Args:
        units: The group.
        stats: Of its read-out's input.
        at_writers: Of its writers' input.
        heads: Divergence between key-value groups, if it is known.
        block: Its block.
    """
    number = int.from_bytes(hashlib.sha256(f"{block}/{units.name}".encode()).digest()[:4], "big")
    biases = tuple(
        None if writer.bias is None else writer.bias.float().clone() for writer in units.writers
    )
    return Candidates(
        kind=units.kind,
        size=units.size,
        readout=units.readout.read(),
        at_readout=stats,
        writers=tuple(writer.read() for writer in units.writers),
        biases=biases,
        at_writers=at_writers,
        divergence=heads if units.kind == "kv_groups" else None,
        seed=number,
    )
