"""What the axes of a tensor are made of, and how many units of each kind a model has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pruning_core.spec.unit_method import UnitKind
from pruning_core.structure.further import Further

Role = Literal["embedding", "head", "norm", "final_norm", "reader"]
"""Tensors that a cut of the residual stream rescales."""


@dataclass(frozen=True)
class Sizes:
    """How many units of each kind there are, or are kept: of one block for neurons and key-value groups."""

    hidden: int
    neurons: int
    kv_groups: int
    layers: int
    vocabulary: int

    def of(self, kind: UnitKind) -> int:
        """Return the number of one kind."""
        return int(getattr(self, kind))


@dataclass(frozen=True)
class Span:
    """A run of an axis: `units` units of `each` consecutive entries."""

    kind: UnitKind
    units: int
    each: int


Spans = tuple[Span, ...]


@dataclass(frozen=True)
class TensorLayout:
    """One stored tensor.

    Attributes:
        block: Its block; None outside the blocks.
        part: Its feed-forward among the block's: an expert's number, else empty.
        stacked: Experts along axis 0, each with neurons of its own; 0 where the tensor holds no more than one.
        axes: Runs of units that cover an axis from its start to its end; empty where nothing can be cut.
        role: What it is, where a cut of the residual stream rescales it.
        further: Where it lies beside the model, what is known of it.
    """

    block: int | None
    part: str
    axes: tuple[Spans, ...]
    role: Role | None = None
    stacked: int = 0
    further: Further | None = None
