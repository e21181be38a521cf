"""`Family`: what the engine must know of an architecture. Data only; one table per family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

Parts = tuple[tuple[str, int], ...]
"""Names and output sizes of the matrices that lie one after the other in a fused tensor."""


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
        prepare: Replaces modules of a freshly built block by equal ones that the engine can see into.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    inputs: tuple[tuple[str, ...], ...]
    fused: Mapping[str, Callable[[Any], Parts]] = field(default_factory=dict)
    file_names: tuple[tuple[str, str], ...] = ()
    prepare: Callable[[nn.Module, Any], None] | None = None
