"""Names that carry the wrappers of training: read, pruned and saved as stock transformers names them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.convert.plain_names import plainly_named
from tests import tiny
from tests.pruning_core.runs import spec, stored

WEIGHTS = "model.safetensors"
WRAPPINGS: dict[str, Callable[[str], str]] = {
    "data parallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "compiled within": lambda name: name.replace("model.", "model._orig_mod.", 1),
    "blocks compiled": lambda name: re.sub(r"(layers\.\d+\.)", r"\1_orig_mod.", name),
    "sharded": lambda name: f"_fsdp_wrapped_module.{name}".replace(
        "layers.1.", "layers.1._fsdp_wrapped_module._checkpoint_wrapped_module."
    ),
    "all but the norm": lambda name: name if name == "model.norm.weight" else f"module.{name}",
}


def wrapped(folder: Path, wrap: Callable[[str], str]) -> tuple[Path, dict[str, torch.Tensor]]:
    """Save a tiny model under wrapped names; return it with its tensors by their own."""
    tensors = load_file(tiny.save(folder, "llama") / WEIGHTS)
    save_file({wrap(name): one for name, one in tensors.items()}, folder / WEIGHTS)
    return folder, tensors


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrapped_names_are_read_as_the_model_s_own(name: str, tmp_path: Path) -> None:
    folder, tensors = wrapped(tmp_path / "m", WRAPPINGS[name])
    facts = inspect(folder)
    assert facts.tensors.keys() == facts.files.keys() == tensors.keys()
    with plainly_named(folder, tmp_path / "renamed") as plain:
        assert not inspect(plain).wrapped
        stock = AutoModelForCausalLM.from_pretrained(plain).state_dict()
    assert all(torch.equal(stock[key], one) for key, one in tensors.items())
    assert not (tmp_path / "renamed").exists()


def test_shards_with_wrapped_names_are_read(tmp_path: Path) -> None:
    folder, tensors = wrapped(tmp_path / "m", WRAPPINGS["compiled"])
    (folder / WEIGHTS).unlink()
    files = {name: f"part-{place % 2}.safetensors" for place, name in enumerate(tensors)}
    for file in set(files.values()):
        part = {f"_orig_mod.{key}": one for key, one in tensors.items() if files[key] == file}
        save_file(part, folder / file)
    index = {"metadata": {}, "weight_map": {f"_orig_mod.{key}": one for key, one in files.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert inspect(folder).files == files
    with plainly_named(folder, tmp_path / "renamed") as plain:
        stock = AutoModelForCausalLM.from_pretrained(plain).state_dict()
    assert all(torch.equal(stock[key], one) for key, one in tensors.items())


def test_a_model_with_its_own_names_is_left_where_it_is(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "m", "llama")
    with plainly_named(folder, tmp_path / "renamed") as plain:
        assert plain == folder


def test_what_is_pruned_of_wrapped_names_is_what_is_pruned_of_plain_ones(tmp_path: Path) -> None:
    folder, _ = wrapped(tmp_path / "wrapped", WRAPPINGS["data parallel"])
    found = stored(folder, spec(), tmp_path / "out")
    expected = stored(tiny.save(tmp_path / "plain", "llama"), spec(), tmp_path / "other")
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(found.tensors[key], one) for key, one in expected.tensors.items())
