"""Do two versions of the code write the same bytes and say the same? Over every family, method and pattern.

    python -m bench.same_results record before.json     in the one checkout; model types may follow, else all
    python -m bench.same_results record after.json      in the other
    python -m bench.same_results compare before.json after.json

The first two run every case on tiny random models and note digests of the checkpoint and of the report, or how the case was
refused; the third compares. Times, paths, versions and the model card are left out. The fresh process that loads each result
is passed over: what it says follows from the bytes. Recovery, evaluation and spared blocks are run on one family alone, as
whole jobs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pruning_core.errors import PruningError
from pruning_core.families import FAMILIES
from pruning_core.pipeline.phases import prune
from pruning_core.spec.prune import PruneSpec
from pruning_core.system import subprocesses
from tests import tiny

Fields = dict[str, Any]

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)
HALF = {"sparsity": 0.5}
TWO_OF_FOUR = {"name": "n:m", "n": 2, "m": 4}
ZERO = {"name": "units", "mode": "zero"}
REFIT = {"refinement": ["refit"]}
DENSE = {"refinement": [{"name": "refit", "target": "dense"}]}
ELEMENT = ("magnitude", "wanda", "ria", "crepe", "sparsegpt", "alps")
INNER = ("flap", "goa", "wanda_sp", "random_units", "contextual")
CARD = "README.md"
"""The model card names the day."""
VOLATILE = {
    "seconds", "started_at", "finished_at", "phases", "versions", "memory", "timing", "path", "paths", "folder",
    "peak_memory_bytes", "forward_seconds", "loads_in", "sample", "dense_sample", "device", "hardware", "threads",
    "fingerprint", "origin",
}  # fmt: skip


def element_cases() -> Iterator[Fields]:
    """Yield what zeros single weights."""
    for method in ELEMENT:
        yield {"method": method, "pattern": TWO_OF_FOUR}
        for pattern in ("row", "matrix"):
            yield {"method": method, "pattern": pattern, **HALF}
    for permute in ("fold", "mask"):
        yield {"method": "ria", "pattern": TWO_OF_FOUR | {"permute": permute}}
    for refinement in (["dsnot"], ["polish"], [{"name": "dsnot", "targets": "all"}, "polish"]):
        yield {"method": "wanda", "refinement": refinement, **HALF}
    yield {"method": "magnitude", "refinement": ["polish"], "pattern": TWO_OF_FOUR}
    for allocation in ("owl", "alphapruning", "ramp"):
        yield {"method": "wanda", "allocation": allocation, "sparsity": 0.6}
        yield {"method": "sparsegpt", "allocation": allocation, "sparsity": 0.6}
    for propagate in (False, True):
        trained = {"learning_rate": 1e-3, "propagate": propagate}
        yield {"method": "wanda", "reconstruction": trained, **HALF}
    yield {"method": "sparsegpt", "true_sequential": True, **HALF}
    yield {"method": {"name": "crepe", "gamma": 0.5, "kernel": 5}, **HALF}
    yield {"method": {"name": "alps", "schedule": "gradual"}, **HALF}


def unit_cases() -> Iterator[Fields]:
    """Yield what removes units, or writes zeros in their place."""
    for pattern in ("units", ZERO):
        for case in (*inner_cases(), *whole_cases()):
            yield {"pattern": pattern, **case}
    yield {"method": {"name": "goa", "blocks": "inner"}, "pattern": ZERO, "sparsity": 0.1}
    yield {"method": {"name": "diet", "granularity": "per_layer"}, "pattern": ZERO, "sparsity": 0.2}


def inner_cases() -> Iterator[Fields]:
    """Yield what takes heads and neurons out of every block."""
    some = {"sparsity": 0.1}
    for name in INNER:
        yield {"method": name, **some}
    for name in ("flap", "goa", "wanda_sp"):
        for kind in ("neurons", "kv_groups"):
            yield {"method": {"name": name, "units": [kind]}, "sparsity": 0.08, **REFIT}
    yield {"method": "wanda_sp", **some, **DENSE}
    yield {"method": {"name": "flap", "compensation": "bias"}, **some}
    yield {"method": {"name": "goa", "reconstruct": True}, **some}
    yield {"method": {"name": "goa", "covariance": "identity", "gated_form": "channel"}, **some}
    for way in ("similarity", "similarity_protected"):
        yield {"method": {"name": "goa", "heads_by": way}, **some}
    alike = {"name": "goa", "heads_by": "similarity", "units": ["kv_groups"]}
    yield {"method": alike | {"threshold": 5.0}}
    yield {"method": {"name": "diet", "granularity": "units"}, **some}
    yield {"method": {"name": "contextual", "relative": 0.9}}


def whole_cases() -> Iterator[Fields]:
    """Yield what takes residual dimensions, blocks or tokens."""
    fifth = {"sparsity": 0.2}
    yield {"method": "diet", **fifth}
    yield {"method": "diet", **fifth, **DENSE}
    yield {"method": {"name": "diet", "rescale": False}, **fifth}
    for way in ({}, {"contiguous": True}, {"rescore": True}):
        yield {"method": {"name": "layer_drop", **way}, **fifth}
    for kind in ("hidden", "layers"):
        yield {"method": {"name": "random_units", "units": [kind]}, **fifth}
    parts = {"name": "contextual", "parts": ["linear", "activation", "embedding"]}
    yield {"method": parts | {"relative": 0.9}}
    yield {"method": {"name": "contextual", "parts": ["embedding"]}, "sparsity": 0.05}


def whole_jobs() -> Iterator[Fields]:
    """Yield what is not a matter of the family: run on a deeper model, with every process that a job starts."""
    measured = {
        "evaluation": {"tasks": ["python_docs"], "windows": 2, "seq_len": 32, "speed": False}
    }
    mask, units = {"method": "wanda", **HALF}, {"method": "flap", "sparsity": 0.1}
    yield {**mask, **measured}
    yield {**units, **measured}
    yield {"method": {"name": "contextual", "parts": ["embedding"]}, **measured}
    for kind in ("full", "lora"):
        recovery = {"method": kind, "tasks": ["python_docs"], "seq_len": 32, "steps": 6, "batch": 2}
        for pruned in (mask, units, {**units, "pattern": ZERO}):
            yield {**pruned, "recovery": recovery}
    yield {**mask, "recovery": recovery | {"distillation": 0.5}}
    yield {**mask, "output": {"dtype": "bfloat16"}}
    yield {**units, "output": {"format": "gguf"}}
    spared = {"name": "goa", "blocks": "inner"}
    for more in ({}, {"reconstruct": True}, {"heads_by": "similarity"}):
        yield {"method": spared | more, "pattern": ZERO, "sparsity": 0.1}


def run_case(dense: Path, fields: Fields, out: Path) -> str:
    """Return a digest of what a case wrote and said, or how it was refused."""
    try:
        spec = PruneSpec.model_validate({"evaluation": {"tasks": []}, **fields})
        report = prune(dense, spec, out, tokens=tiny.tokens(6, 24).clamp_max(258))
    except (PruningError, ValueError) as error:
        return f"refused: {getattr(error, 'code', '')} {error}"
    digest = hashlib.sha256()
    checkpoint = out / "checkpoint"
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        if file.name == CARD:
            continue
        digest.update(f"{file.relative_to(checkpoint)}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    said = json.dumps(steady(report.model_dump(mode="json")), sort_keys=True)
    return f"{digest.hexdigest()} {hashlib.sha256(said.encode()).hexdigest()}"


def steady(value: Any) -> Any:
    """Return what a report says without times, paths and versions."""
    if isinstance(value, dict):
        return {
            key: steady(inner)
            for key, inner in value.items()
            if key not in VOLATILE and not key.endswith(("seconds", "_at"))
        }
    if isinstance(value, list):
        return [
            steady(item)
            for item in value
            if not (isinstance(item, dict) and item.get("path") == CARD)
        ]
    return value


def answered(_module: str, *_arguments: str, **_more: Any) -> str:
    """Stand in for the fresh process."""
    return json.dumps({"loads_in": {}, "max_logit_difference": 0.0, "sample": "", "speed": None})


def collect(target: Path, model_types: Sequence[str]) -> None:
    """Run all cases that the file lacks."""
    torch.set_num_threads(1)
    known: dict[str, str] = json.loads(target.read_text()) if target.is_file() else {}
    cases = [*element_cases(), *unit_cases()]
    for model_type in model_types:
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(subprocesses, "run", answered),
        ):
            dense = tiny.save(Path(folder) / "dense", model_type)
            for fields in cases:
                key = f"{model_type} {json.dumps(fields, sort_keys=True)}"
                if key not in known:
                    known[key] = run_case(dense, fields, Path(folder) / "out")
                shutil.rmtree(Path(folder) / "out", ignore_errors=True)
        target.write_text(json.dumps(known, indent=1, sort_keys=True))
        print(f"{model_type}: {len(known)} cases", flush=True)
    if "llama" in model_types:
        with tempfile.TemporaryDirectory() as folder:
            dense = tiny.save(Path(folder) / "dense", "llama", num_hidden_layers=8)
            for fields in whole_jobs():
                key = f"whole {json.dumps(fields, sort_keys=True)}"
                known[key] = known.get(key) or run_case(dense, fields, Path(folder) / "out")
                shutil.rmtree(Path(folder) / "out", ignore_errors=True)
        target.write_text(json.dumps(known, indent=1, sort_keys=True))
        print(f"whole jobs: {len(known)} cases", flush=True)


def compare(before: Path, after: Path) -> bool:
    """Print the cases that differ; tell whether there are none."""
    old_values, new_values = (json.loads(path.read_text()) for path in (before, after))
    different = sorted(
        key
        for key in old_values.keys() | new_values.keys()
        if old_values.get(key) != new_values.get(key)
    )
    for key in different:
        print(f"{key}\n  before: {old_values.get(key)}\n  after:  {new_values.get(key)}")
    refused = sum(value.startswith("refused") for value in old_values.values())
    print(f"{len(old_values)} cases, {refused} of them refused, {len(different)} differ")
    return not different


if __name__ == "__main__":
    action, path, *others = sys.argv[1:]
    if action == "compare":
        sys.exit(not compare(Path(path), Path(others[0])))
    collect(Path(path), others or MODEL_TYPES)
