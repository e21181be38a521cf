"""`BlockResult`: all that became of one block, as the walk, the ledger and the report take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from pruning_core.spec.report_parts.removal import MatrixReport, ReconstructionReport, UnitReport


@dataclass(frozen=True)
class BlockResult:
    """What became of one block.

    Attributes:
        changed: Every tensor that is no longer the source's, by stored name.
        matrices: One per matrix, in order of execution, where single weights went.
        units: One per group of units, where units went.
        dropped: The units that went, int64, by name of their group.
        orders: Channel orders that are saved beside the model, int64 [in], by stored name.
        reconstruction: What training the block gained.
        warnings: What the user must know.
    """

    changed: Mapping[str, torch.Tensor] = field(default_factory=dict)
    matrices: Sequence[MatrixReport] = ()
    units: Sequence[UnitReport] = ()
    dropped: Mapping[str, torch.Tensor] = field(default_factory=dict)
    orders: Mapping[str, torch.Tensor] = field(default_factory=dict)
    reconstruction: ReconstructionReport | None = None
    warnings: Sequence[str] = ()
