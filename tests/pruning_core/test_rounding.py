"""Weights in another type than the source's: rounded to nearest, measured, masks exact, never infinite."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.checkpoints.facts import inspect
from pruning_core.convert import rounding
from pruning_core.convert.from_gguf import write_folder
from pruning_core.errors import OutputOverflow
from pruning_core.pipeline.phases import prune
from pruning_core.spec.output import Output, RoundedDtype
from pruning_core.spec.prune import PruneSpec
from pruning_core.structure.layout import layout_of
from tests import gguf_files, tiny

DTYPES: tuple[RoundedDtype, ...] = ("bfloat16", "float16")


def nearest(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Round float32 to nearest, ties to even, by their bits: torch has no part in it."""
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return kept.astype(np.uint32).view(np.float32)


def edited(folder: Path, changes: dict[str, float]) -> Path:
    """Set the first weight of tensors."""
    tensors = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        tensors[name].view(-1)[0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def spec(**output: Any) -> PruneSpec:
    told = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}, "output": output}
    return PruneSpec.model_validate(told)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt2"])
def test_every_weight_is_the_nearest_one(
    model_type: str, dtype: RoundedDtype, tmp_path: Path
) -> None:
    source = tiny.save(tmp_path / "source", model_type)
    found = rounding.write(source, tmp_path / "made", dtype)
    before, after = (load_file(one / "model.safetensors") for one in (source, tmp_path / "made"))
    assert before.keys() == after.keys()
    flat = np.concatenate([one.numpy().ravel() for one in before.values()])
    truth = nearest(flat, dtype)
    made = np.concatenate([one.float().numpy().ravel() for one in after.values()])
    assert (made == truth).all()
    report = found.report(dtype, 0.0)
    exact = flat.astype(np.float64)
    error = np.linalg.norm(truth - exact) / np.linalg.norm(exact)
    assert report.relative_error == pytest.approx(error, rel=1e-6)
    assert report.relative_error < 2.0 ** (-8 if dtype == "bfloat16" else -11)
    assert (report.weights, report.changed) == (flat.size, int((flat != truth).sum()))
    assert found.bytes == 2 * flat.size
    assert {one.dtype for one in inspect(tmp_path / "made").tensors.values()} <= {"BF16", "F16"}
    told = json.loads((tmp_path / "made" / "config.json").read_text())
    assert told["dtype"] == dtype


def test_what_is_no_weight_stays_byte_for_byte(tmp_path: Path) -> None:
    source = tiny.save(tmp_path / "source", "llama")
    tensors = load_file(source / "model.safetensors") | {"ids": torch.arange(4)}
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    rounding.write(source, tmp_path / "made", "bfloat16")
    assert torch.equal(load_file(tmp_path / "made" / "model.safetensors")["ids"], torch.arange(4))
    tokenizer = "tokenizer.json"
    assert (tmp_path / "made" / tokenizer).read_bytes() == (source / tokenizer).read_bytes()


@pytest.mark.parametrize("value", [65_520.0, -1e6, 3e38])
def test_a_weight_beyond_float16_is_refused_before_any_work(value: float, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    source = edited(tiny.save(tmp_path / "source", "llama"), {name: value})
    with pytest.raises(OutputOverflow, match="up_proj"):
        prune(source, spec(dtype="float16"), tmp_path / "out")
    assert not (tmp_path / "out" / "work").exists()


def test_bfloat16_reaches_as_far_as_float32_but_for_its_last_numbers(tmp_path: Path) -> None:
    source = edited(tiny.save(tmp_path / "s", "llama"), {"model.norm.weight": 3e38})
    rounding.write(source, tmp_path / "made", "bfloat16")
    edited(source, {"model.norm.weight": float(np.finfo(np.float32).max)})
    with pytest.raises(OutputOverflow):
        rounding.write(source, tmp_path / "other", "bfloat16")


def test_weights_too_small_are_counted(tmp_path: Path) -> None:
    names = [f"model.layers.{block}.mlp.up_proj.weight" for block in range(3)]
    source = edited(tiny.save(tmp_path / "s", "llama"), dict.fromkeys(names, 1e-9))
    assert rounding.write(source, tmp_path / "half", "float16").underflows == 3
    assert rounding.write(source, tmp_path / "brain", "bfloat16").underflows == 0


def test_a_run_on_a_gguf_file_writes_bfloat16_and_says_so(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"))
    write_folder(path, tmp_path / "folder")
    report = prune(tmp_path / "folder", spec(), tmp_path / "out")
    made = load_file(tmp_path / "out" / "checkpoint" / "model.safetensors")
    dense = load_file(tmp_path / "folder" / "model.safetensors")
    matrices = {one.name: one for block in report.blocks for one in block.matrices}
    for name, tensor in dense.items():
        kept = made[name] != 0
        assert torch.equal(made[name][kept], tensor.bfloat16()[kept]), name
        if name in matrices:
            assert int((~kept).sum()) == matrices[name].zeros
    sizes = (report.source_format, report.bytes_before, report.bytes_after)
    assert sizes == ("gguf", path.stat().st_size, 2 * report.parameters)
    assert report.rounding is not None
    assert (report.rounding.dtype, report.rounding.underflows) == ("bfloat16", 0)
    assert 0 < report.rounding.max_logit_difference < 0.05


@pytest.mark.parametrize(
    ("asked", "gguf", "expected"),
    [(None, False, None), (None, True, "bfloat16"), ("source", True, None), ("float16", True, "float16"),
     ("bfloat16", False, "bfloat16")],
)  # fmt: skip
def test_the_type_follows_the_source(asked: Any, gguf: bool, expected: str | None) -> None:
    assert Output(dtype=asked).rounds_to(gguf=gguf) == expected


def test_a_checkpoint_of_that_type_is_not_rounded(tmp_path: Path) -> None:
    source = tiny.save(tmp_path / "source", "llama", dtype=torch.bfloat16)
    assert rounding.needed(inspect(source), "bfloat16") is None
    assert rounding.needed(inspect(source), "float16") == "float16"


def test_a_budget_in_bytes_counts_what_is_written(tmp_path: Path) -> None:
    facts = inspect(tiny.save(tmp_path / "source", "llama"))
    whole = layout_of(facts)
    halved = layout_of(facts, Output(dtype="bfloat16"))
    assert whole.bytes(whole.sizes) == 2 * halved.bytes(halved.sizes) == facts.bytes
    assert math.isclose(facts.bytes, 4 * facts.parameters)
