"""Whatever a library does over a user's file, panic and abort included, ends as an error that names the file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from pruning_core.errors import DatasetInvalid, ModelInvalid, ModelNotFound
from pruning_core.pipeline.phases import prune
from pruning_core.spec.prune import PruneSpec
from pruning_core.system import subprocesses
from pruning_core.system.user_faults import blamed_on
from pruning_core.tokenizers import probe
from pruning_core.tokenizers.kept import kept_ids
from pruning_core.tokenizers.load import check_tokenizer, load_tokenizer
from tests import tiny

Json = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("models") / "llama", "llama")


class Panic(BaseException):
    """As the panics of libraries in Rust."""


def recurse() -> None:
    recurse()


@pytest.mark.parametrize(
    "fail", [ValueError("odd"), KeyError("model"), SystemExit(0), Panic("odd"), RecursionError()]
)
def test_all_that_a_library_can_raise_is_blamed_on_the_file(fail: BaseException) -> None:
    with (
        pytest.raises(DatasetInvalid, match=r"rows\.json: ."),
        blamed_on("rows.json", DatasetInvalid),
    ):
        raise fail


def test_an_exhausted_stack_and_endless_words_are_told_in_short() -> None:
    with pytest.raises(ModelInvalid, match="recursion"), blamed_on("x"):
        recurse()
    with pytest.raises(ModelInvalid) as caught, blamed_on("x"):
        raise ValueError("long " * 10_000)
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    "fail", [KeyboardInterrupt(), GeneratorExit(), MemoryError(), ModelNotFound("gone")]
)
def test_what_is_not_the_files_fault_passes(fail: BaseException) -> None:
    with pytest.raises(type(fail)), blamed_on("x"):
        raise fail


def precompiled(content: Json) -> None:
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}


def out_of_bounds(content: Json) -> None:
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "CAAAAP////8AAAAA"}


def prefix_longer_than_tokens(content: Json) -> None:
    content["model"] |= {
        "continuing_subword_prefix": "####",
        "vocab": {"a": 0, "b": 1, "ab": 2, "####": 3},
        "merges": [["a", "b"]],
    }


def empty_pattern(content: Json) -> None:
    content["normalizer"] = {"type": "Replace", "pattern": {"String": ""}, "content": "b"}


def no_chunk(content: Json) -> None:
    content["pre_tokenizer"] = {"type": "FixedLength", "length": 0}


def unknown_without_name(content: Json) -> None:
    content["model"] = {"type": "WordLevel", "unk_token": "[X]", "vocab": {"a": 0}}


def strips_more_than_there_is(content: Json) -> None:
    content["decoder"] = {"type": "Strip", "content": "T", "start": 10**9, "stop": 10**9}


def no_model(content: Json) -> None:
    del content["model"]


def deep(content: Json) -> None:
    nested: Any = {}
    for _ in range(400):
        nested = {"normalizers": [nested]}
    content["normalizer"] = nested


PANICS = (
    precompiled, out_of_bounds, prefix_longer_than_tokens, empty_pattern, no_chunk,
    unknown_without_name, strips_more_than_there_is, no_model, deep,
)  # fmt: skip


def spoilt(model: Path, folder: Path, spoil: Callable[[Json], None]) -> Path:
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = copy.deepcopy(json.loads((folder / "tokenizer.json").read_bytes()))
    spoil(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("spoil", PANICS)
def test_a_tokenizer_that_panics_is_refused(
    spoil: Callable[[Json], None], model: Path, tmp_path: Path
) -> None:
    folder = spoilt(model, tmp_path / "model", spoil)
    with pytest.raises(ModelInvalid, match="tokenizer"):
        check_tokenizer(folder, load_tokenizer(folder), "The text")


@pytest.mark.parametrize("spoil", [no_model, precompiled, deep])
def test_a_tokenizer_that_panics_is_refused_where_its_vocabulary_is_cut(
    spoil: Callable[[Json], None], model: Path, tmp_path: Path
) -> None:
    folder = spoilt(model, tmp_path / "model", spoil)
    with pytest.raises(ModelInvalid):
        kept_ids(folder, range(50))


@pytest.mark.parametrize("spoil", [empty_pattern, precompiled])
def test_a_run_is_refused_before_any_work(
    spoil: Callable[[Json], None], model: Path, tmp_path: Path
) -> None:
    folder = spoilt(model, tmp_path / "model", spoil)
    spec = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}}
    with pytest.raises(ModelInvalid, match="tokenizer"):
        prune(folder, PruneSpec.model_validate(spec), tmp_path / "out")
    assert not (tmp_path / "out" / "work").exists()


@pytest.mark.parametrize("metadata", [{"format": 5}, [1], "pt"])
def test_a_header_that_only_the_library_refuses_is_the_models_fault(
    metadata: Any, model: Path, tmp_path: Path
) -> None:
    folder = spoilt(model, tmp_path / "model", lambda _: None)
    path = folder / "model.safetensors"
    save_file(load_file(path), path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length]) | {"__metadata__": metadata}
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + raw[8 + length :])
    spec = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}}
    with pytest.raises(ModelInvalid, match=r"model\.safetensors"):
        prune(folder, PruneSpec.model_validate(spec), tmp_path / "out")


def test_a_file_that_makes_the_library_abort_ends_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "__name__", "tests.pruning_core.aborted")
    with pytest.raises(ModelInvalid, match="SIGABRT"):
        probe.probe(tmp_path / "tokenizer.json", lambda: None)
    monkeypatch.setattr(probe, "__name__", "tests.pruning_core.endless")
    monkeypatch.setattr(probe, "SECONDS", 0.1)
    monkeypatch.setattr(subprocesses, "LOOK_SECONDS", 0.1)
    with pytest.raises(ModelInvalid, match="busy"):
        probe.probe(tmp_path / "tokenizer.json", lambda: None)


def test_a_sound_tokenizer_passes_its_probe(model: Path) -> None:
    probe.probe(model / "tokenizer.json", lambda: None)
