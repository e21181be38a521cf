"""Another type for all weights of a finished checkpoint: rounded to nearest, measured, never to infinity."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from pruning_core.checkpoints.facts import SAFETENSORS_NAMES, CheckpointFacts
from pruning_core.checkpoints.headers import TensorFacts, format_header, read_header
from pruning_core.checkpoints.weight_files import CONFIG, INDEX
from pruning_core.errors import OutputOverflow
from pruning_core.export.checkpoint import CHANNEL_ORDER
from pruning_core.model.tensors import DTYPES
from pruning_core.spec.output import RoundedDtype
from pruning_core.spec.report_parts.files import RoundingReport
from pruning_core.system.files import flush, link_or_copy, write_json

_DTYPE_KEYS = ("dtype", "torch_dtype")


@dataclass
class Measured:
    """What rounding did so far."""

    weights: int = 0
    changed: int = 0
    underflows: int = 0
    error: float = 0.0
    norm: float = 0.0
    worst: float = 0.0
    bytes: int = 0

    def add(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Count one tensor, before and after."""
        exact, rounded = before.double(), after.double()
        error, norm = float((exact - rounded).square().sum()), float(exact.square().sum())
        self.weights += before.numel()
        self.changed += int((exact != rounded).sum())
        self.underflows += int(((exact != 0) & (rounded == 0)).sum())
        self.error += error
        self.norm += norm
        self.worst = max(self.worst, math.sqrt(error / norm) if norm else 0.0)

    def report(self, dtype: RoundedDtype, max_logit_difference: float) -> RoundingReport:
        """Return it in the report's words."""
        return RoundingReport(
            dtype=dtype,
            weights=self.weights,
            changed=self.changed,
            underflows=self.underflows,
            relative_error=math.sqrt(self.error / self.norm) if self.norm else 0.0,
            largest_relative_error=self.worst,
            max_logit_difference=max_logit_difference,
        )


def needed(facts: CheckpointFacts, dtype: RoundedDtype | None) -> RoundedDtype | None:
    """Return the type to round to, None where every floating-point tensor has it already."""
    floats = {tensor.dtype for tensor in facts.tensors.values() if tensor.dtype in DTYPES}
    return None if dtype is None or floats <= {SAFETENSORS_NAMES[dtype]} else dtype


def check_range(
    folder: Path, facts: CheckpointFacts, dtype: RoundedDtype, alive: Callable[[], None]
) -> None:
    """Refuse a dense model with weights that the type does not reach, before any work is done.

    Raises:
        OutputOverflow: names the tensor.
    """
    for name, file in facts.files.items():
        if facts.tensors[name].dtype in DTYPES and dtype == "float16":
            with safe_open(folder / file, framework="pt") as opened:
                _rounded(name, opened.get_tensor(name), torch.float16)
            alive()


def write(
    folder: Path, target: Path, dtype: RoundedDtype, alive: Callable[[], None] = lambda: None
) -> Measured:
    """Write a checkpoint with all weights in one type, and return what that changed.

    Args:
        folder: A complete checkpoint.
        target: Folder to make.
        dtype: The type.
        alive: Called after every tensor.

    Raises:
        OutputOverflow: a weight is beyond the type's largest number.
    """
    measured = Measured()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(folder.rglob("*")):
        new = target / path.relative_to(folder)
        if path.is_dir():
            new.mkdir()
        elif path.suffix == ".safetensors" and path.name != CHANNEL_ORDER:
            _write_file(path, new, dtype, measured, alive)
        elif path.name == CONFIG and path.parent == folder:
            write_json(new, _renamed_dtype(json.loads(path.read_bytes()), dtype))
        elif path.name != INDEX:
            link_or_copy(path, new)
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_bytes())
        write_json(target / INDEX, index | {"metadata": {"total_size": measured.bytes}})
    for path in target.iterdir():
        flush(path)
    flush(target)
    return measured


def _write_file(
    path: Path, target: Path, dtype: RoundedDtype, measured: Measured, alive: Callable[[], None]
) -> None:
    old = read_header(path)
    new = {
        name: TensorFacts(
            SAFETENSORS_NAMES[dtype] if stored.dtype in DTYPES else stored.dtype, stored.shape, 0
        )
        for name, stored in old.items()
    }
    with target.open("wb") as output, safe_open(path, framework="pt") as opened:
        output.write(format_header(new))
        for name, facts in new.items():
            tensor = opened.get_tensor(name)
            if tensor.is_floating_point():
                rounded = _rounded(name, tensor, getattr(torch, dtype))
                measured.add(tensor, rounded)
                tensor = rounded
            output.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            measured.bytes += facts.bytes
            alive()


def _rounded(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rounded = tensor.to(dtype)
    if bool((rounded.isinf() & ~tensor.isinf()).any()):
        raise OutputOverflow(
            f"{name} has weights up to {float(tensor.abs().max()):.3g}; "
            f"{str(dtype).removeprefix('torch.')} ends at {torch.finfo(dtype).max:.5g}",
            suggestions=("use output.dtype `bfloat16` or `source`",),
            pointer="/prune/output/dtype",
        )
    return rounded


def _renamed_dtype(config: dict[str, Any], dtype: RoundedDtype) -> dict[str, Any]:
    """Return the configuration with the type under the keys that name it, in nested ones too."""
    settings = {
        key: _renamed_dtype(value, dtype) if isinstance(value, dict) else value
        for key, value in config.items()
    }
    named = [key for key in _DTYPE_KEYS if isinstance(settings.get(key), str)]
    return settings | dict.fromkeys(named, dtype)
