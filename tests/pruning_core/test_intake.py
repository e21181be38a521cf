"""Bad checkpoints, paths and tasks: each refused before any work, by its stable code."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.admission import presets, submission
from pruning_core.checkpoints import headers
from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.tasks import NO_FILES, Files
from pruning_core.datasets.uploads import Use, UserFile
from pruning_core.errors import PruningError
from pruning_core.model.streamed import StreamedModel
from pruning_core.spec.base import digest
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec
from tests import tiny

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("sound") / "llama", "llama")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    """A sound checkpoint of this test's own, to damage."""
    return Path(shutil.copytree(sound, tmp_path / "models" / "llama"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_header(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the header of the weights and leave the data as it is."""
    raw = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    edit(header)
    encoded = json.dumps(header).encode()
    data = raw[8 + length :]
    (folder / WEIGHTS).write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def first(header: dict[str, Any]) -> dict[str, Any]:
    name = next(name for name in header if name != "__metadata__")
    entry: dict[str, Any] = header[name]
    return entry


def request(folder: Path, **changes: Any) -> tuple[ModelRef, PruneSpec]:
    fields: dict[str, Any] = {
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"tasks": ["python_docs"], "seq_len": 32},
    }
    return ModelRef(ref=f"file://{folder}"), PruneSpec.model_validate(fields | changes)


def refusal(
    folder: Path, root: Path | None = None, files: Files = NO_FILES, **changes: Any
) -> PruningError:
    """Return the error that a submit of this folder is refused with."""
    model, spec = request(folder, **changes)
    with pytest.raises(PruningError) as refused:
        submission.check(model, spec, roots=[root or folder.parent], tasks_dir=None, files=files)
    assert refused.value.error_class == "user"
    assert len(refused.value.message) > 20
    return refused.value


def code_of(folder: Path, root: Path | None = None, files: Files = NO_FILES, **changes: Any) -> str:
    """Return the code that a submit of this folder is refused with."""
    return refusal(folder, root, files, **changes).code


def refused(folder: Path, files: Files = NO_FILES, **changes: Any) -> tuple[str, str | None]:
    """Return the code, and the field at fault."""
    error = refusal(folder, files=files, **changes)
    return error.code, error.pointer


def test_a_sound_checkpoint_is_admitted_with_its_facts(folder: Path) -> None:
    model, spec = request(folder)
    submission.check(model, spec, roots=[folder.parent], tasks_dir=None)
    facts = inspect(folder)
    assert (facts.model_type, facts.blocks, facts.vocab_size) == ("llama", tiny.BLOCKS, tiny.VOCAB)
    assert facts.parameters == sum(t.numel() for t in load_file(folder / WEIGHTS).values())


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no config": ("MODEL_INVALID", lambda f: (f / "config.json").unlink()),
    "config is no JSON": ("MODEL_INVALID", lambda f: (f / "config.json").write_text("{")),
    "config is a list": ("MODEL_INVALID", lambda f: (f / "config.json").write_text("[]")),
    "no weights": ("MODEL_INVALID", lambda f: (f / WEIGHTS).unlink()),
    "pickle only": ("UNSAFE_PICKLE", lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin")),
    "pickle in disguise": ("MODEL_INVALID", lambda f: (f / WEIGHTS).write_bytes(b"\x80\x04" * 99)),
    "truncated": (
        "MODEL_INVALID",
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-7]),
    ),
    "empty file": ("MODEL_INVALID", lambda f: (f / WEIGHTS).write_bytes(b"")),
    "header longer than the file": (
        "MODEL_INVALID",
        lambda f: (f / WEIGHTS).write_bytes((1 << 62).to_bytes(8, "little") + b"{}"),
    ),
    "header lies about a shape": (
        "MODEL_INVALID",
        lambda f: edit_header(f, lambda h: first(h).update(shape=[1 << 40, 1 << 40])),
    ),
    "header has a negative size": (
        "MODEL_INVALID",
        lambda f: edit_header(f, lambda h: first(h).update(shape=[-1, -1])),
    ),
    "header has overlapping tensors": (
        "MODEL_INVALID",
        lambda f: edit_header(f, lambda h: first(h).update(data_offsets=[4, 8], shape=[1])),
    ),
    "header has an unknown dtype": (
        "MODEL_INVALID",
        lambda f: edit_header(f, lambda h: first(h).update(dtype="F3")),
    ),
    "absurd width": ("MODEL_INVALID", lambda f: edit_config(f, hidden_size=10**9)),
    "absurd depth": ("MODEL_INVALID", lambda f: edit_config(f, num_hidden_layers=10**6)),
    "negative vocabulary": ("MODEL_INVALID", lambda f: edit_config(f, vocab_size=-1)),
    "fractional heads": ("MODEL_INVALID", lambda f: edit_config(f, num_attention_heads=2.5)),
    "another depth than the files": (
        "MODEL_INVALID",
        lambda f: edit_config(f, num_hidden_layers=tiny.BLOCKS + 1),
    ),
    "another vocabulary than the files": ("MODEL_INVALID", lambda f: edit_config(f, vocab_size=7)),
    "model type is a list": ("MODEL_UNSUPPORTED", lambda f: edit_config(f, model_type=["llama"])),
    "unknown architecture": ("MODEL_UNSUPPORTED", lambda f: edit_config(f, model_type="bert")),
    "quantised": (
        "MODEL_UNSUPPORTED",
        lambda f: edit_config(f, quantization_config={"quant_method": "gptq"}),
    ),
    "no tokenizer": ("MODEL_INVALID", lambda f: (f / "tokenizer.json").unlink()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_at_submit(damage: str, folder: Path) -> None:
    code, apply = DAMAGES[damage]
    apply(folder)
    assert code_of(folder) == code


STAND_INS = {
    "lfs": ("Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "an old lfs": ("Git LFS", "version https://hawser.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "annex": ("git-annex", "/annex/objects/SHA256E-s1--0.safetensors\n"),
    "page": ("web page", "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n"),
}


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize(
    "file", ["model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"]
)
def test_a_file_that_stands_for_another_is_called_so(name: str, file: str, folder: Path) -> None:
    what, content = STAND_INS[name]
    if file.endswith("index.json"):
        (folder / WEIGHTS).unlink()
    (folder / file).write_text(content)
    error = refusal(folder)
    assert error.message.startswith(f"{file} is a ")
    assert what in error.message
    assert error.suggestions


@pytest.mark.parametrize(
    ("prefix", "named"),
    [
        ("module.", ["'module.'"]),
        ("_orig_mod.", ["'_orig_mod.'"]),
        ("module._orig_mod.", ["'module.'", "'_orig_mod.'"]),
    ],
)
def test_names_that_carry_the_wrappers_of_training_are_named(
    prefix: str, named: list[str], folder: Path
) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, folder / WEIGHTS)
    error = refusal(folder)
    assert error.code == "MODEL_INVALID"
    assert all(one in error.message for one in named)


AROUND: dict[str, tuple[dict[str, Any], str]] = {
    "gemma 3": (
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
        "'gemma3_text' (text_config)",
    ),
    "two levels": (
        {
            "model_type": "qwen_omni",
            "thinker_config": {"model_type": "t", "text_config": {"model_type": "qwen2"}},
        },
        "'qwen2' (thinker_config.text_config)",
    ),
    "another key": (
        {"model_type": "internvl_chat", "llm_config": {"model_type": "llama"}},
        "'llama' (llm_config)",
    ),
    "beside an encoder": (
        {
            "model_type": "llava",
            "vision_config": {"model_type": "clip"},
            "text_config": {"model_type": "mistral"},
        },
        "'mistral' (text_config)",
    ),
    "of no known type": (
        {"model_type": "other", "text_config": {"model_type": "strange"}},
        "model_type 'other' is not supported",
    ),
    "without a type": ({"model_type": None}, "no model_type"),
    "other files by version": ({"configuration_files": ["config.4.0.0.json"]}, "by its version"),
}


@pytest.mark.parametrize("name", AROUND)
def test_a_model_around_a_text_model_is_refused_with_its_name(name: str, folder: Path) -> None:
    changes, said = AROUND[name]
    edit_config(folder, **changes)
    error = refusal(folder)
    assert error.code == "MODEL_UNSUPPORTED"
    assert said in error.message


TOKENIZERS = {
    "tokenizer.model": ("sentencepiece", "save_pretrained"),
    "tekken.json": ("tekken", "save_pretrained"),
    "tokenizer.tiktoken": ("tiktoken", "save_pretrained"),
}


@pytest.mark.parametrize("file", TOKENIZERS)
def test_a_tokenizer_in_another_format_alone_is_named_and_how_to_convert_it(
    file: str, folder: Path
) -> None:
    (folder / "tokenizer.json").rename(folder / file)
    error = refusal(folder)
    text = " ".join((error.message, *error.suggestions))
    assert file in text
    assert all(word in text for word in TOKENIZERS[file])


def test_a_path_outside_the_roots_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    assert code_of(folder, root=tmp_path / "allowed") == "MODEL_NOT_ALLOWED"
    assert (
        code_of(tmp_path / "allowed" / ".." / "models" / "llama", root=tmp_path)
        == "MODEL_NOT_ALLOWED"
    )


def test_without_roots_no_local_model_is_allowed(folder: Path) -> None:
    model, spec = request(folder)
    with pytest.raises(PruningError, match="SECATEUR_MODEL_ROOTS"):
        submission.check(model, spec, roots=[], tasks_dir=None)


def test_a_link_out_of_the_roots_is_refused(folder: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to(folder)
    assert code_of(allowed / "link") == "MODEL_NOT_ALLOWED"


def test_a_weight_file_that_links_out_of_the_roots_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(tmp_path / "elsewhere.safetensors")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere.safetensors")
    assert code_of(folder) == "MODEL_NOT_ALLOWED"


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    assert code_of(tmp_path / "nothing") == "MODEL_NOT_FOUND"


def test_a_file_that_only_calls_itself_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"\x80\x04 no gguf")
    assert code_of(tmp_path / "x.gguf") == "MODEL_INVALID"


def test_paths_that_are_no_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder.gguf").mkdir()
    assert code_of(tmp_path / "loop") == "MODEL_NOT_FOUND"
    assert code_of(tmp_path / ("x" * 300)) == "MODEL_NOT_FOUND"
    assert code_of(tmp_path / "folder.gguf") == "MODEL_INVALID"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sparsity": None, "pattern": {"name": "n:m", "n": 2, "m": 7}}, "PATTERN_UNSUPPORTED"),
        ({"sparsity": 0.01}, "PATTERN_UNSUPPORTED"),
        (
            {"sparsity": None, "pattern": {"name": "n:m", "n": 8, "m": 16, "permute": "fold"}},
            "PATTERN_UNSUPPORTED",  # heads are 8 wide
        ),
        ({"evaluation": {"seq_len": 100_000}}, "TOKENS_INVALID"),
        (
            {"calibration": [{"name": "python_docs", "samples": 1}], "reconstruction": {}},
            "DATASET_TOO_SMALL",  # one window is held out
        ),
    ],
)
def test_what_cannot_fit_the_model_is_refused_at_submit(
    changes: dict[str, Any], code: str, folder: Path
) -> None:
    assert code_of(folder, **changes) == code


UNITS = {"method": "wanda_sp", "sparsity": 0.1}


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({**UNITS, "sparsity": 0.9}, "SIZE_UNREACHABLE", "/prune/sparsity"),
        ({**UNITS, "sparsity": 0.001}, "SIZE_UNREACHABLE", "/prune/sparsity"),
        (
            {**UNITS, "sparsity": None, "budget": {"parameters": 50_000}},
            "SIZE_UNREACHABLE",
            "/prune/budget/parameters",
        ),
        (
            {**UNITS, "pattern": {"name": "units", "multiple_of": 64}, "method": "diet"},
            "METHOD_UNSUPPORTED_FOR_ARCH",
            "/prune/method",
        ),
        (
            {**UNITS, "method": {"name": "flap", "compensation": "bias"}},
            "METHOD_UNSUPPORTED_FOR_ARCH",
            "/prune/method/compensation",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_at_submit(
    changes: dict[str, Any], code: str, pointer: str, folder: Path
) -> None:
    assert refused(folder, **changes) == (code, pointer)


def test_what_can_be_cut_is_admitted(folder: Path) -> None:
    model, spec = request(folder, method="layer_drop", sparsity=0.15)
    submission.check(model, spec, roots=[folder.parent], tasks_dir=None)


def test_tokens_are_removed_only_from_a_tokenizer_json(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    method = {"name": "contextual", "parts": ["activation"]}
    model, spec = request(folder, method=method, sparsity=0.1)
    submission.check(model, spec, roots=[folder.parent], tasks_dir=None)
    method = {"name": "contextual", "parts": ["embedding"]}
    found = refused(folder, method=method, sparsity=None)
    assert found == ("MODEL_INVALID", "/prune/method/parts")


def test_what_reads_no_text_needs_none(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    calibration = {"tasks": [{"name": "python_docs", "samples": 60000}]}
    model, spec = request(
        folder, method="magnitude", evaluation={"tasks": []}, calibration=calibration
    )
    submission.check(model, spec, roots=[folder.parent], tasks_dir=None)


def test_a_header_of_many_tensors_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    length = headers.MAX_HEADER_BYTES + 1
    with (tmp_path / WEIGHTS).open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(length + 8)
    with pytest.raises(PruningError, match="header of"):
        headers.read_header(tmp_path / WEIGHTS)


def test_a_duplicate_name_in_a_header_is_refused(tmp_path: Path) -> None:
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    raw = f'{{"a":{entry},"a":{entry}}}'.encode()
    (tmp_path / WEIGHTS).write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(4))
    with pytest.raises(PruningError, match="twice"):
        headers.read_header(tmp_path / WEIGHTS)


def test_nothing_in_a_config_can_name_code(folder: Path) -> None:
    edit_config(
        folder,
        auto_map={"AutoModelForCausalLM": "evil.Model"},
        _attn_implementation="evil/kernel",
        _attn_implementation_internal="evil/kernel",
        _commit_hash={"of": "evil"},
        attn_implementation="evil/kernel",
        experts_implementation="evil/kernel",
    )
    before = json.loads((folder / "config.json").read_text())
    config = inspect(folder).config
    assert "evil" not in json.dumps(config)
    assert config.items() <= before.items()


def test_a_setting_with_an_underscore_stays_where_it_can_name_nothing(folder: Path) -> None:
    harmless = {"_name_or_path": "someone/model", "_remove_final_layer_norm": True, "_window": 4}
    edit_config(folder, **harmless)
    config = inspect(folder).config
    assert harmless.items() <= config.items()
    assert StreamedModel(folder, inspect(folder), torch.device("cpu")).config.name_or_path == ""


@pytest.mark.parametrize(
    ("calibration", "code"),
    [
        ({"tasks": ["nowhere"]}, "DATASET_NOT_FOUND"),
        (
            {"tasks": [{"name": "python_docs", "samples": 60000}], "seq_len": 128},
            "DATASET_TOO_SMALL",
        ),
        ({"tasks": ["python_docs"], "seq_len": 512}, "TOKENS_INVALID"),
    ],
)
def test_bad_calibration_is_refused_at_submit(
    calibration: dict[str, Any], code: str, folder: Path
) -> None:
    assert code_of(folder, calibration=calibration) == code


FILE_A, FILE_B = (f"file:file_01JDA2M9Q4XW5S8ZK6B7C3D1E{last}" for last in "AB")
WITHOUT_CALIBRATION = {"method": "magnitude", "evaluation": {"tasks": []}}


@pytest.mark.parametrize(
    ("recovery", "code"),
    [
        ({"tasks": ["nowhere"]}, "DATASET_NOT_FOUND"),
        ({"tasks": ["python_docs"], "seq_len": 257}, "TOKENS_INVALID"),
    ],
)
def test_bad_recovery_is_refused_at_submit(
    recovery: dict[str, Any], code: str, folder: Path
) -> None:
    assert code_of(folder, **WITHOUT_CALIBRATION, recovery=recovery) == code


def test_recovery_on_the_calibration_tasks_needs_them(folder: Path) -> None:
    changes = WITHOUT_CALIBRATION | {"calibration": {"tasks": ["nowhere"]}}
    model, spec = request(folder, **changes)
    submission.check(model, spec, roots=[folder.parent], tasks_dir=None)
    assert code_of(folder, **changes, recovery={}) == "DATASET_NOT_FOUND"


def test_recovery_on_the_model_s_own_text_is_admitted(folder: Path) -> None:
    model, spec = request(
        folder, **WITHOUT_CALIBRATION, recovery={"tasks": ["self", "python_docs"]}
    )
    submission.check(model, spec, roots=[folder.parent], tasks_dir=None)


def test_recovery_needs_a_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert code_of(folder, **WITHOUT_CALIBRATION, recovery={}) == "MODEL_INVALID"


def upload(use: Use, content: str = "text\n" * 500) -> UserFile:
    """Return the facts of an upload; admission does not read it."""
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    size = len(content)
    return UserFile(
        path=Path("/nowhere"),
        format="text",
        kind="text",
        use=use,
        items=9,
        bytes=size,
        sha256=sha256,
    )


def test_recovery_with_less_text_than_two_windows_is_refused(folder: Path) -> None:
    recovery = {"tasks": [FILE_A], "seq_len": 128}
    files = {FILE_A: upload("both", "text" * 63)}
    assert code_of(folder, files=files, **WITHOUT_CALIBRATION, recovery=recovery) == (
        "DATASET_TOO_SMALL"
    )


@pytest.mark.parametrize(
    ("tasks", "pointer"),
    [([FILE_A], "/prune/recovery/tasks"), (None, "/prune/calibration/tasks")],
)
def test_an_upload_for_evaluation_alone_trains_nothing(
    tasks: list[str] | None, pointer: str, folder: Path
) -> None:
    changes = WITHOUT_CALIBRATION | {"calibration": {"tasks": [FILE_A]}}
    files = {FILE_A: upload("evaluation")}
    found = refused(folder, files, **changes, recovery={"tasks": tasks})
    assert found == ("DATASET_NOT_FOUND", pointer)


def test_the_bytes_that_train_are_not_evaluated(folder: Path) -> None:
    files = {FILE_A: upload("calibration"), FILE_B: upload("evaluation")}
    changes = {"method": "magnitude", "evaluation": {"tasks": [FILE_B]}}
    model, spec = request(folder, **changes, recovery={"tasks": ["python_docs"]})
    submission.check(model, spec, roots=[folder.parent], tasks_dir=None, files=files)
    found = refused(folder, files, **changes, recovery={"tasks": [FILE_A]})
    assert found == ("DATA_LEAKAGE", "/prune/evaluation/tasks")
    other = files | {FILE_B: upload("evaluation", "other\n" * 500)}
    model, spec = request(folder, **changes, recovery={"tasks": [FILE_A]})
    submission.check(model, spec, roots=[folder.parent], tasks_dir=None, files=other)


def test_an_unknown_evaluation_task_is_refused_at_submit(folder: Path) -> None:
    assert code_of(folder, evaluation={"tasks": ["nowhere"]}) == "DATASET_NOT_FOUND"


def test_float16_and_bfloat16_are_float(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "half", "llama", dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in inspect(folder).tensors.values()} == {"BF16"}


# Presets


def crepe(**fields: Any) -> PruneSpec:
    return PruneSpec.model_validate({"method": {"name": "crepe", **fields}, "sparsity": 0.5})


FOUND = presets.Preset(alpha=0.5, beta=0.7, gamma=0.8, kernel=9, neighbour="smooth", found="a test")


def test_a_preset_s_name_is_replaced_by_its_coefficients() -> None:
    expanded = presets.expand(crepe(preset="mine", exponent=1), {"mine": FOUND})
    explicit = crepe(alpha=0.5, beta=0.7, gamma=0.8, kernel=9, neighbour="smooth", exponent=1)
    assert expanded == explicit
    assert digest(expanded) == digest(explicit)


def test_a_stored_preset_wins_over_a_shipped_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = FOUND.model_copy(update={"gamma": 0.1})
    monkeypatch.setattr(presets, "shipped", lambda: {"mine": shipped})
    assert (
        presets.expand(crepe(preset="mine")).method
        == crepe(alpha=0.5, beta=0.7, gamma=0.1, kernel=9, neighbour="smooth").method
    )
    stored = presets.expand(crepe(preset="mine"), {"mine": FOUND})
    assert stored == presets.expand(crepe(preset="other"), {"other": FOUND})


@pytest.mark.parametrize("method", ["wanda", {"name": "crepe", "search": {"name": "pho"}}])
def test_what_names_no_preset_is_left_as_it_is(method: Any) -> None:
    spec = PruneSpec.model_validate({"method": method, "sparsity": 0.5})
    assert presets.expand(spec, {"mine": FOUND}) is spec


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PruningError, match=r"'nowhere'; there are: .*mine") as refused:
        presets.expand(crepe(preset="nowhere"), {"mine": FOUND})
    assert refused.value.code == "PRESET_NOT_FOUND"


def test_every_shipped_preset_can_be_named() -> None:
    for name in presets.shipped():
        assert presets.expand(crepe(preset=name)).method.name == "crepe"
