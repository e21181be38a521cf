"""What a job that removes units decided before its first block, on disk: sizes and units as tensors by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pruning_core.plans.low_activation import Masks
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.unit_method import UNIT_NAMES
from pruning_core.structure.spans import Sizes
from pruning_core.system.files import replacing


def write(path: Path, fingerprint: str, plan: UnitPlan) -> None:
    """Keep what was decided; fingerprint and warnings go into the metadata."""
    tensors = {
        "sizes": torch.tensor([plan.sizes.of(kind) for kind in UNIT_NAMES]),
        "layers": torch.tensor(plan.layers, dtype=torch.int64),
    }
    if plan.hidden is not None:
        tensors["hidden"] = plan.hidden
    if plan.vocabulary is not None:
        tensors["vocabulary"] = torch.tensor(plan.vocabulary)
    for index, dropped in enumerate(plan.hidden_by_block):
        tensors[f"hidden_by_block/{index}"] = dropped
    for (block, name), dropped in plan.inner.items():
        tensors[f"inner/{block}/{name}"] = dropped
    for (block, name), masks in plan.low_activation.items():
        for part, mask in masks._asdict().items():
            tensors[f"low_activation/{block}/{name}/{part}"] = mask
    metadata = {"fingerprint": fingerprint, "warnings": json.dumps(plan.warnings)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, temporary, metadata=metadata)


def read(path: Path, fingerprint: str, plan: UnitPlan) -> UnitPlan | None:
    """Return the plan with what was decided; None where that is not there, or of another run.

    Args:
        path: Where `write` put it.
        fingerprint: Of the run.
        plan: With nothing decided.
    """
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    if metadata.get("fingerprint") != fingerprint:
        return None
    tensors = load_file(path)
    inner_units, masks = {}, {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        block, _, group = rest.partition("/")
        if kind == "inner":
            inner_units[int(block), group] = tensor
        elif kind == "low_activation" and group.endswith("/rows"):
            group = group.removesuffix("/rows")
            parts = (tensors[f"low_activation/{block}/{group}/{part}"] for part in Masks._fields)
            masks[int(block), group] = Masks(*parts)
    by_block = [name for name in tensors if name.startswith("hidden_by_block/")]
    tokens = tensors.get("vocabulary")
    sizes = dict(zip(UNIT_NAMES, tensors["sizes"].tolist(), strict=True))
    return replace(
        plan,
        sizes=Sizes(**sizes),
        inner=inner_units,
        low_activation=masks,
        hidden=tensors.get("hidden"),
        hidden_by_block=tuple(tensors[f"hidden_by_block/{i}"] for i in range(len(by_block))),
        layers=tuple(tensors["layers"].tolist()),
        vocabulary=None if tokens is None else tuple(tokens.tolist()),
        warnings=tuple(json.loads(metadata["warnings"])),
    )
