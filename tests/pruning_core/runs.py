"""Whole runs on tiny models, and what they left on disk.

Most end as a kill would once the last block is stored, because the fresh process that verifies a result takes longer
than all the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.checkpoints.facts import inspect
from pruning_core.families import FAMILIES
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.phases import prune
from pruning_core.spec.progress import Progress
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report_parts.removal import BlockReport, MatrixReport
from tests import tiny

Tensors = dict[str, torch.Tensor]
CPU = torch.device("cpu")
MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)
LAST = tiny.BLOCKS - 1
CREPE = {"name": "crepe", "gamma": 0.5, "kernel": 5}
ORDER = "channel_order."


def spec(**changes: Any) -> PruneSpec:
    fields: dict[str, Any] = {"method": "wanda", "sparsity": 0.5, "evaluation": {"tasks": []}}
    return PruneSpec.model_validate(fields | changes)


class Watcher:
    """Keeps every step; stops the run as a kill would once block `stop_after` is stored."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[Progress] = []
        self._stop_after = stop_after

    def progress(self, progress: Progress) -> None:
        self.seen.append(progress)
        if progress.block is not None and progress.block.block == self._stop_after:
            raise KeyboardInterrupt

    def alive(self) -> None:
        """Nothing to note."""

    def pruned_blocks(self) -> list[int]:
        return [progress.block.block for progress in self.seen if progress.block]


def tokens() -> torch.Tensor:
    return tiny.tokens(8, 24)


def n_of_m(permute: str, n: int = 2, m: int = 4, **changes: Any) -> PruneSpec:
    pattern = {"name": "n:m", "n": n, "m": m, "permute": permute}
    return spec(sparsity=None, pattern=pattern, **changes)


def save_with_biases(folder: Path, model_type: str, **changes: Any) -> Path:
    """Biases of a fresh model are zero, and would hide an order that passes them by."""
    tiny.save(folder, model_type, **changes)
    tensors = load_file(folder / "model.safetensors")
    for seed, name in enumerate(sorted(name for name in tensors if name.endswith("bias"))):
        generator = torch.Generator().manual_seed(seed)
        bias = 0.3 * torch.randn(tensors[name].shape, generator=generator)
        tensors[name] = bias.to(tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@dataclass(frozen=True)
class Stored:
    """What a run that got as far as its last block has on disk."""

    tensors: Tensors
    blocks: list[BlockReport]
    phases: list[str]

    @property
    def matrices(self) -> list[MatrixReport]:
        return [matrix for block in self.blocks for matrix in block.matrices]


def stored(folder: Path, wanted: PruneSpec, out: Path, given: torch.Tensor | None = None) -> Stored:
    """Prune all blocks, and stop before they are saved as a checkpoint."""
    watcher = Watcher(stop_after=LAST)
    with pytest.raises(KeyboardInterrupt):
        prune(folder, wanted, out, tokens=tokens() if given is None else given, observer=watcher)
    found: Tensors = {}
    for path in sorted((out / "work").glob("block-*.safetensors")):
        found |= load_file(path)
    percents = [progress.percent for progress in watcher.seen]
    assert percents == sorted(percents)
    blocks = [progress.block for progress in watcher.seen if progress.block]
    return Stored(found, blocks, [progress.phase for progress in watcher.seen])


def oriented(model_type: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a stored weight as [out, in]."""
    return tensor.T if model_type == "gpt2" and tensor.ndim == 2 else tensor


def valid(weight: torch.Tensor, n: int, m: int) -> bool:
    """Tell whether exactly n of every m consecutive inputs are there."""
    kept = (weight != 0).reshape(-1, m).sum(dim=1)
    return bool((kept == n).all())


def removed(blocks: list[BlockReport]) -> tuple[int, int]:
    """Return how many weights went, of how many."""
    matrices = [matrix for block in blocks for matrix in block.matrices]
    return sum(m.removed for m in matrices), sum(math.prod(m.shape) for m in matrices)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def answers(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits as a run computes them, block by block."""
    model = StreamedModel(folder, inspect(folder), CPU)
    states = Activations(model, ids)
    with torch.no_grad():
        for index in range(len(model.blocks)):
            with model.block(index) as block:
                states.advance(index, block)
        return model.logits(ids, states.hidden[0], torch.arange(ids.shape[1]))
