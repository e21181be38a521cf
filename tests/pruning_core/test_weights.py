"""Which files are the model: those that stock transformers opens, whatever lies beside them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import _get_resolved_checkpoint_files

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import ModelInvalid
from pruning_core.export import checkpoint
from pruning_core.fetch.hub_download import PATTERNS
from tests import tiny

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("sound") / "llama", "llama")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "llama"))


def add_shards(
    folder: Path, shards: tuple[str, str] = SHARDS, index: str = INDEX, shift: float = 0.0
) -> None:
    """Write all tensors a second time, in two files and an index of them, each `shift` larger."""
    tensors = {name: one + shift for name, one in load_file(folder / SINGLE).items()}
    weight_map = {name: shards[place % 2] for place, name in enumerate(sorted(tensors))}
    for file in shards:
        save_file(
            {name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file
        )
    content = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / index).write_text(json.dumps(content))


def only_shards(folder: Path, **changes: Any) -> None:
    add_shards(folder, **changes)
    (folder / SINGLE).unlink()


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def explicit(folder: Path, name: str) -> None:
    """Let config.json name the weights that lie beside others."""
    add_shards(folder, ("a.safetensors", "b.safetensors"), "other.safetensors.index.json", 1.0)
    shutil.copyfile(folder / SINGLE, folder / "other.safetensors")
    edit(folder, "config.json", transformers_weights=name)


def copied(*names: str) -> Callable[[Path], object]:
    return lambda folder: [shutil.copyfile(folder / SINGLE, folder / name) for name in names]


def twice(folder: Path) -> None:
    """Let the second shard hold a tensor again that the index gives to the first."""
    only_shards(folder)
    first, second = (load_file(folder / name) for name in SHARDS)
    name = min(first)
    save_file(second | {name: first[name] + 1}, folder / SHARDS[1])


FOLDERS: dict[str, Callable[[Path], object]] = {
    "single": copied(),
    "shards": only_shards,
    "single beside older shards": lambda folder: add_shards(folder, shift=1.0),
    "shards beside a variant": lambda folder: (
        copied("model.fp16.safetensors")(folder),
        only_shards(folder),
    ),
    "variant beside": copied("model.fp16.safetensors"),
    "consolidated beside": copied("consolidated.safetensors", "consolidated.00.safetensors"),
    "shards beside consolidated": lambda folder: (
        copied("consolidated.safetensors")(folder),
        only_shards(folder),
    ),
    "adapter weights beside": copied("adapter_model.safetensors"),
    "pickles beside": copied("pytorch_model.bin"),
    "shards of another name": lambda folder: only_shards(
        folder, shards=("x.safetensors", "y.safetensors")
    ),
    "the file that config.json names": lambda folder: explicit(folder, "other.safetensors"),
    "the index that config.json names": lambda folder: explicit(
        folder, "other.safetensors.index.json"
    ),
    "a tensor in two shards": twice,
}


def read_by_stock(folder: Path) -> dict[str, str]:
    """Return the file of every tensor as stock transformers merges them."""
    named = json.loads((folder / "config.json").read_text()).get("transformers_weights")
    paths, _ = _get_resolved_checkpoint_files(folder, None, None, None, None, False, named)
    assert paths is not None
    return {name: Path(path).name for path in paths for name in load_file(path)}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_files_are_those_that_stock_transformers_opens(name: str, folder: Path) -> None:
    FOLDERS[name](folder)
    facts = inspect(folder)
    assert facts.files == read_by_stock(folder)
    for tensor, facts_of in facts.tensors.items():
        assert facts_of.shape == tuple(load_file(folder / facts.files[tensor])[tensor].shape)


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_saved_opens_as_the_source_does(name: str, folder: Path, tmp_path: Path) -> None:
    FOLDERS[name](folder)
    checkpoint.write(folder, inspect(folder), [], tmp_path / "out", shard_bytes=1 << 30)
    source, result = map(AutoModelForCausalLM.from_pretrained, (folder, tmp_path / "out"))
    for one, other in zip(source.parameters(), result.parameters(), strict=True):
        assert torch.equal(one, other)


def without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def lose_metadata(folder: Path) -> None:
    only_shards(folder)
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def remap(folder: Path, file: Any) -> None:
    only_shards(folder)
    edit(folder, INDEX, weight_map={"model.norm.weight": file})


REFUSED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an adapter on top": ("adapter", adapter),
    "an adapter alone": (
        "Adapter weights.*merge it first",
        lambda folder: (adapter(folder), without(folder, SINGLE, "config.json")),
    ),
    "the makers' own format": (
        "params.json",
        lambda folder: (folder / "config.json").rename(folder / "params.json"),
    ),
    "a variant alone": (
        "variant 'fp16'",
        lambda folder: (folder / SINGLE).rename(folder / "model.fp16.safetensors"),
    ),
    "a variant alone, in shards": (
        "variant 'bf16'",
        lambda folder: only_shards(
            folder,
            index="model.safetensors.index.bf16.json",
            shards=("x.safetensors", "y.safetensors"),
        ),
    ),
    "consolidated alone": (
        r"consolidated\.safetensors is not read",
        lambda folder: (folder / SINGLE).rename(folder / "consolidated.safetensors"),
    ),
    "a distributed checkpoint": (
        "distributed",
        copied("shard-00000-model-00001-of-00001.safetensors"),
    ),
    "a subfolder": (
        "the folder inner has one",
        lambda folder: (
            (folder / "inner").mkdir(),
            (folder / "config.json").rename(folder / "inner" / "config.json"),
        ),
    ),
    "config.json names a pickle": (
        "transformers_weights",
        lambda folder: edit(folder, "config.json", transformers_weights="pytorch_model.bin"),
    ),
    "config.json names what is not there": (
        "transformers_weights",
        lambda folder: edit(folder, "config.json", transformers_weights="../x.safetensors"),
    ),
    "config.json names a number": (
        "transformers_weights",
        lambda folder: edit(folder, "config.json", transformers_weights=7),
    ),
    "an index without metadata": ("metadata", lose_metadata),
    "an index that names a missing file": (
        "which is missing",
        lambda folder: remap(folder, "other.safetensors"),
    ),
    "an index that leaves the folder": ("no safetensors", lambda f: remap(f, "../x.safetensors")),
    "an index of no names": ("no safetensors", lambda folder: remap(folder, 7)),
    "an index of lists": ("no safetensors", lambda folder: remap(folder, [SINGLE])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_stock_does_not_open_is_refused_and_explained(name: str, folder: Path) -> None:
    said, damage = REFUSED[name]
    damage(folder)
    with pytest.raises(ModelInvalid) as refused:
        inspect(folder)
    text = " ".join((refused.value.message, *refused.value.suggestions))
    assert re.search(said, text), text


def test_of_a_hub_model_nothing_is_fetched_that_is_not_read() -> None:
    needless = ["consolidated.safetensors", "original/model.safetensors", "metal/model.bin"]
    needless += ["onnx/model.onnx", "model.fp16.safetensors", "pytorch_model.bin", "flax.msgpack"]
    read = ["config.json", INDEX, *SHARDS, "tokenizer.json"]
    assert [*filter_repo_objects([*needless, *read], allow_patterns=PATTERNS)] == read
