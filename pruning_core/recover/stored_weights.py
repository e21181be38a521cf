"""A model's parameters under the names, shapes and dtypes that its checkpoint has for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pruning_core.checkpoints.facts import CheckpointFacts, inspect
from pruning_core.errors import ModelInvalid, OutputDoesNotLoad
from pruning_core.families import family_of
from pruning_core.model.tensors import TensorFiles, main_dtype
from pruning_core.system import subprocesses
from pruning_core.system.files import flush


class StoredWeights:
    """A model's parameters under the names that its checkpoint has for them.

    Args:
        model: As stock transformers loaded it.
        folder: The checkpoint.

    Raises:
        ModelInvalid: a parameter is in no file.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._facts: CheckpointFacts = inspect(folder)
        self.family = family_of(self._facts.model_type)
        self._files = TensorFiles(folder, self._facts, self.family)
        self._aliases: dict[str, list[str]] = {}
        first: dict[int, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._aliases.setdefault(first.setdefault(id(parameter), name), []).append(name)
        self.names = {
            name: list(self.tensors(name, model.get_parameter(name).data)) for name in self._aliases
        }
        lost = [name for name, stored in self.names.items() if not stored]
        if lost:
            raise ModelInvalid(f"the checkpoint lacks {lost[0]}: it cannot be trained")

    def tensors(self, name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a parameter's tensors by stored name: more than one where it is tied, or fused when loaded."""
        from transformers.core_model_loading import revert_weight_conversion

        by_name: dict[str, torch.Tensor] = {}
        for alias in self._aliases[name]:
            for canonical, tensor in revert_weight_conversion(self._model, {alias: weight}).items():
                stored = self._files.stored_name(canonical)
                if stored is not None:
                    by_name[stored] = tensor
        return by_name

    def dtypes(self) -> dict[str, torch.dtype]:
        """Return the dtype of each parameter in the files, the coarsest of its tensors'."""
        return {
            name: min(
                (self._files.dtype(tensor) for tensor in stored), key=lambda dtype: dtype.itemsize
            )
            for name, stored in self.names.items()
        }

    def main_dtype(self) -> torch.dtype:
        """Return the dtype that holds most of the weights."""
        return main_dtype(self._facts)

    def masked(self, stored: Iterable[str]) -> list[str]:
        """Return the parameters that hold any of the stored tensors."""
        wanted = set(stored)
        return [name for name, tensors in self.names.items() if wanted & set(tensors)]

    def write(self, weights: Mapping[str, torch.Tensor], target: Path) -> None:
        """Copy the folder, with the given parameters in place of its own.

        Raises:
            OutputDoesNotLoad: a shape does not fit; nothing of ours should cause it.
        """
        temporary = target.with_name(f"{target.name}.tmp")
        for path in (target, temporary):
            shutil.rmtree(path, ignore_errors=True)
        shards = set(self._facts.files.values()) if weights else set()
        self._copy_but(shards, temporary)
        changed = {
            stored: tensor
            for name, weight in weights.items()
            for stored, tensor in self.tensors(name, weight).items()
        }
        for number, shard in enumerate(sorted(shards), 1):
            subprocesses.report_progress(number - 1, len(shards), "file")
            self._write_shard(shard, changed, temporary)
        for path in temporary.rglob("*"):
            flush(path)
        temporary.replace(target)
        flush(target.parent)

    def _copy_but(self, shards: Iterable[str], target: Path) -> None:
        """Copy the folder without some of the files at its top."""
        weights_apart = shutil.ignore_patterns(*shards)
        shutil.copytree(
            self._folder,
            target,
            ignore=lambda where, names: (
                weights_apart(where, names) if Path(where) == self._folder else set()
            ),
        )

    def _write_shard(self, shard: str, changed: Mapping[str, torch.Tensor], target: Path) -> None:
        tensors = load_file(self._folder / shard)
        for name in tensors.keys() & changed.keys():
            if changed[name].shape != tensors[name].shape:
                raise OutputDoesNotLoad(f"{name} has another shape after training")
            tensors[name] = changed[name].to(tensors[name].dtype, copy=True).contiguous()
        save_file(tensors, target / shard, metadata={"format": "pt"})
