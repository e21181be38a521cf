"""`Matrix`: an [out, in] float32 view of one prunable matrix, however the module stores it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pruning_core.errors import NothingMatched
from pruning_core.families.base import Family


@dataclass(frozen=True)
class Matrix:
    """Rows `start:stop` of the map y = W x that a module holds.

    Attributes:
        name: Module path within the block, with `[part]` for a part of a fused module.
        module: Linear or one expert's view of a stack ([out, in]), or Conv1D ([in, out]).
        start: First output row.
        stop: Row after the last.
    """

    name: str
    module: nn.Module
    start: int
    stop: int

    @property
    def view(self) -> torch.Tensor:
        """The stored weight as [out, in], sharing memory with the module."""
        weight: torch.Tensor = self.module.weight.data  # type: ignore[assignment]
        oriented = weight.T if isinstance(self.module, Conv1D) else weight
        return oriented[self.start : self.stop]

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias of its rows, [out], sharing memory with the module; None where it has none."""
        whole: torch.Tensor | None = self.module.bias  # type: ignore[assignment]
        return None if whole is None else whole.data[self.start : self.stop]

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs, inputs."""
        return self.stop - self.start, int(self.view.shape[1])

    def read(self) -> torch.Tensor:
        """Return a float32 copy, [out, in]."""
        return self.view.to(torch.float32, copy=True)

    def write(self, weight: torch.Tensor, *, stored: torch.dtype) -> None:
        """Write [out, in] back, rounded to the dtype that the checkpoint stores."""
        self.view.copy_(weight.to(stored))

    def zero(self) -> None:
        """Write zeros into the whole weight and its bias."""
        self.view[:] = 0
        if self.bias is not None:
            self.bias[:] = 0


@dataclass(frozen=True)
class InputGroup:
    """Matrices of one block that read the same input, and the module that sees it first.

    Routed experts see only the tokens sent to them, perhaps none: for those `always_runs` is False. Groups of one
    `stage` run side by side.
    """

    first: nn.Module
    matrices: tuple[Matrix, ...]
    always_runs: bool
    stage: int = 0


def input_groups(block: nn.Module, family: Family, config: Any) -> list[InputGroup]:
    """Return a block's prunable matrices by shared input, in order of execution.

    Raises:
        NothingMatched: a module that the family's table names is not there.
    """
    groups = [
        group
        for stage in range(len(family.inputs))
        for group in _expand(block, stage, family, config)
    ]
    if not groups:
        raise NothingMatched(f"the table of family {family.name} names no matrix")
    return groups


def _expand(block: nn.Module, stage: int, family: Family, config: Any) -> Iterator[InputGroup]:
    paths = family.inputs[stage]
    prefix, star, _ = paths[0].partition("*")
    experts = len(list(_module(block, prefix.rstrip(".")).children())) if star else 1
    for expert in range(experts):
        names = [path.replace("*", str(expert)) for path in paths]
        matrices = tuple(part for name in names for part in _parts(block, name, family, config))
        yield InputGroup(_module(block, names[0]), matrices, always_runs=not star, stage=stage)


def _module(block: nn.Module, path: str) -> nn.Module:
    try:
        return block.get_submodule(path)
    except AttributeError:
        raise NothingMatched(f"the block has no module {path}") from None


def _parts(block: nn.Module, path: str, family: Family, config: Any) -> Iterator[Matrix]:
    module = _module(block, path)
    if path not in family.fused:
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        rows = weight.shape[1] if isinstance(module, Conv1D) else weight.shape[0]
        yield Matrix(path, module, 0, rows)
        return
    start = 0
    for part, size in family.fused[path](config):
        yield Matrix(f"{path}[{part}]", module, start, start + size)
        start += size
