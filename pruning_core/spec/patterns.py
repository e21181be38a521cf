"""Where zeros may lie: one count per row, one per matrix, n kept of every m consecutive inputs, or whole units."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pruning_core.spec.base import Frozen

PatternName = Literal["row", "matrix", "n:m", "units"]
Permute = Literal["none", "fold", "mask"]


def removed_count(ratio: float, size: int) -> int:
    """Return how many of `size` weights go: floor(ratio * size), safe against 0.29 * 100 = 28.999..."""
    return math.floor(ratio * size + 1e-6)


class Row(Frozen):
    """Each output row is compared with itself and loses the same number of weights."""

    name: Literal["row"] = "row"


class MatrixWide(Frozen):
    """All weights of a matrix are compared with each other."""

    name: Literal["matrix"] = "matrix"


class NofM(Frozen):
    """N weights are kept of every m consecutive input channels of each row; the ratio follows."""

    name: Literal["n:m"] = "n:m"
    n: int = Field(ge=1, le=1023)
    """Weights KEPT in each group."""
    m: int = Field(ge=2, le=1024)
    """Group size along the input channels; must divide the width of every pruned matrix."""
    permute: Permute = "none"
    """Reorder input channels before they are grouped. `fold` does so where neighbouring weights absorb the order, and
    the file is n:m as stored; `mask` does so everywhere, and the file is n:m only in the order that is saved beside it."""

    @field_validator("permute", mode="before", json_schema_input_type=Permute | bool)
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {True: "fold", False: "none"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _keeps_fewer_than_all(self) -> Self:
        if self.n >= self.m:
            raise ValueError(f"n must be smaller than m: {self.n}:{self.m} removes nothing")
        return self


class Units(Frozen):
    """Whole units go, and the model becomes smaller: residual dimensions, heads, neurons, blocks or tokens, as the method decides."""

    name: Literal["units"] = "units"
    mode: Literal["remove", "zero"] = "remove"
    """`remove` slices every tensor; `zero` keeps all shapes and writes zeros, for study, and takes choices that no smaller model can have."""
    multiple_of: int = Field(default=8, ge=1, le=1024)
    """Kept widths (hidden size, neurons) are multiples of this; 64 or 128 suit accelerators best."""


Pattern = Annotated[Row | MatrixWide | NofM | Units, Field(discriminator="name")]
