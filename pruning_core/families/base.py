"""`Family`: what the engine must know of an architecture. Data only; one table per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

Parts = tuple[tuple[str, int], ...]
"""Names and output sizes of the matrices that lie one after the other in a fused tensor."""


@dataclass(frozen=True)
class Fold:
    """An order of one matrix's inputs that other matrices of the block can absorb in their output rows.

    Names are those of `engine.matrix`: the module's path within the block, with `[part]` for a part of a fused
    module. `*` stands for one expert, the same one throughout.

    Attributes:
        reader: The matrix whose inputs are put in order.
        writers: The matrices that make those inputs, one output row for each (per query head for heads).
        heads: The inputs are attention heads: channels stay within their head, and all query heads of a key-value
            group share one order.
    """

    reader: str
    writers: tuple[str, ...]
    heads: bool = False


@dataclass(frozen=True)
class Family:
    """Where an architecture keeps its blocks and its matrices.

    Attributes:
        name: Name of the table, for reports.
        model_types: `model_type` values of `config.json` that it describes.
        blocks: Path of the `ModuleList` of blocks in the causal model.
        inputs: Modules of a block grouped by the input they share, in order of execution. `*` stands for every
            expert. A statistic is taken once per group.
        fused: For modules that hold several matrices, the parts (from the config).
        file_names: Pairs (module path part, path part in the checkpoint) where they differ.
        folds: Input orders that the block absorbs. Between the writers and the reader nothing may tell one channel
            from another: no norm with a weight, no scale.
        begins_windows: Trained so that a text without its first token means nothing to it.
        prepare: Replaces modules of a freshly built block by equal ones that the engine can see into.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    inputs: tuple[tuple[str, ...], ...]
    fused: Mapping[str, Callable[[Any], Parts]] = field(default_factory=dict)
    file_names: tuple[tuple[str, str], ...] = ()
    folds: tuple[Fold, ...] = ()
    begins_windows: bool = False
    prepare: Callable[[nn.Module, Any], None] | None = None
