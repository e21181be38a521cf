"""Tensors of a checkpoint folder by name, read one block at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from pruning_core.checkpoints.facts import CheckpointFacts, inspect
from pruning_core.errors import ModelInvalid, ModelNotFinite
from pruning_core.families.base import Family
from pruning_core.families.parameters import stored_name
from pruning_core.numerics.linear_algebra import all_finite
from pruning_core.system.user_faults import blamed_on

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def main_dtype(facts: CheckpointFacts) -> torch.dtype:
    """Return the dtype that holds most of the weights."""
    counts: dict[str, int] = {}
    for tensor in (facts.tensors[name] for name in facts.parameter_names):
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.count
    return DTYPES[max(counts, key=counts.__getitem__)]


class TensorFiles:
    """Reads tensors under the names that stock transformers' modules use."""

    def __init__(self, folder: Path, facts: CheckpointFacts, family: Family) -> None:
        self._folder = folder
        self._facts = facts
        self._family = family

    def stored_name(self, name: str) -> str | None:
        """Return the name in the files of a parameter of the model, or None."""
        return stored_name(self._family, name, self._facts.files)

    def dtype(self, stored: str) -> torch.dtype:
        """Return the dtype that the checkpoint stores a tensor in."""
        return DTYPES[self._facts.tensors[stored].dtype]

    def load(
        self, names: Iterable[str], *, dtype: torch.dtype, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Return parameters by model name, finite, as private copies.

        Raises:
            ModelInvalid: one is missing.
            ModelNotFinite: one holds NaN or infinity.
        """
        by_file: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name in names:
            stored = self.stored_name(name)
            if stored is None:
                raise ModelInvalid(
                    f"the checkpoint lacks {name}, which its configuration calls for"
                )
            by_file[self._facts.files[stored]].append((name, stored))
        tensors = {}
        for file, pairs in by_file.items():
            with _opened(self._folder / file) as opened:
                for name, stored in pairs:
                    tensor = opened.get_tensor(stored).to(device=device, dtype=dtype, copy=True)
                    if not all_finite(tensor):
                        raise ModelNotFinite(
                            f"{stored} of the source checkpoint holds NaN or infinity: mend or re-download it"
                        )
                    tensors[name] = tensor
        return tensors


def _opened(path: Path) -> Any:
    """Open a weight file; the library judges some headers more strictly than we do."""
    with blamed_on(f"{path.name} cannot be read"):
        return safe_open(path, framework="pt")


def new_zeros(before: Path, after: Path, alive: Callable[[], None] = lambda: None) -> int:
    """Return how many more zeros the parameters of a checkpoint hold than those of another.

    Args:
        before: Folder of the other.
        after: Folder of the one.
        alive: Called after every tensor.
    """
    return _zeros(after, alive) - _zeros(before, alive)


def _zeros(folder: Path, alive: Callable[[], None]) -> int:
    by_file: dict[str, list[str]] = defaultdict(list)
    facts = inspect(folder)
    for name in facts.parameter_names:
        by_file[facts.files[name]].append(name)
    zeros = 0
    for file, names in by_file.items():
        with safe_open(folder / file, framework="pt") as opened:
            for name in names:
                tensor = opened.get_tensor(name)
                zeros += tensor.numel() - int(tensor.count_nonzero())
                alive()
    return zeros
