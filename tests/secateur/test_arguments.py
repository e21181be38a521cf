"""What people type: each slip is answered with what was probably meant, before a server is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur import arguments, data, flags, quantities
from secateur.errors import Usage


@pytest.mark.parametrize(
    ("text", "share"),
    [("0.5", 0.5), ("50%", 0.5), (" 50 % ", 0.5), (".25", 0.25), ("0.5%", 0.005), ("12.5%", 0.125)],
)
def test_a_share_is_a_fraction_or_a_percentage(text: str, share: float) -> None:
    assert quantities.share(text) == share


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("50", "did you mean 50% or 0.5?"),
        ("12.5", "did you mean 12.5% or 0.125?"),
        ("0,5", "did you mean 0.5?"),
        ("50,5%", "did you mean 50.5%?"),
        ("100%", "both excluded"),
        ("1", "both excluded"),
        ("0", "both excluded"),
        ("500", "both excluded"),
        ("-0.5", "no share like 0.5 or 50%"),
        ("half", "no share like 0.5 or 50%"),
        ("nan", "no share like 0.5 or 50%"),
        ("", "no share like 0.5 or 50%"),
    ],
)
def test_another_number_is_asked_back_without_a_terminal(text: str, asked: str) -> None:
    with pytest.raises(Usage, match=r"^USAGE: --sparsity: ") as caught:
        arguments.share(text, "--sparsity")
    assert asked in caught.value.detail


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Qwen/Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B"),
        ("gpt2", "hf://gpt2"),
        ("Qwen/Qwen3-0.6B@main", "hf://Qwen/Qwen3-0.6B@main"),
        ("hf:Qwen/Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B"),
        ("hf:/Qwen/Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B"),
        ("HF://Qwen/Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B", "hf://Qwen/Qwen3-0.6B"),
        ("huggingface.co/Qwen/Qwen3-0.6B/", "hf://Qwen/Qwen3-0.6B"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/tree/dev", "hf://Qwen/Qwen3-0.6B@dev"),
    ],
)
def test_what_looks_like_a_model_of_the_hub_is_asked_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Usage) as caught:
        arguments.model_ref(text, "--model")
    assert caught.value.detail.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("text", ["./model", "/models/a", "a/b/c", "model.gguf", "~/m"])
def test_a_path_that_is_none_is_no_such_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Usage, match="no such file or folder: /") as caught:
        arguments.model_ref(text, "--model")
    assert "did you mean" not in caught.value.detail


def test_what_there_is_becomes_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "a model").mkdir(parents=True)
    model = (tmp_path / "org" / "a model").as_uri()
    assert arguments.model_ref("org/a model", "MODEL") == model
    for text in ("hf://org/model@v1", "file:///elsewhere/model"):
        assert arguments.model_ref(text, "MODEL") == text


@pytest.mark.parametrize(
    ("text", "bound"),
    [("a.acc_drop<=3%", 0.03), ("a.ppl_ratio <= 1.15", 1.15), ("a.b.acc>=40 %", 0.4)],
)
def test_a_gate_takes_percentages(text: str, bound: float) -> None:
    assert bound in arguments.gate(text.replace(" %", "%")).values()


@pytest.mark.parametrize(
    "text", ["./none.jsonl", "none.txt", "~/none", "some/folder", "file:///none.csv"]
)
def test_data_that_looks_like_a_path_must_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Usage, match=r"--calibration: .*no such file"):
        data.local_files([text], "--calibration")


def test_tasks_and_uploaded_files_are_no_paths(tmp_path: Path) -> None:
    assert data.local_files(["python_docs", "mmlu.law-1", "file:contracts", "self"], "") == {}
    with pytest.raises(Usage, match="is a folder: upload one file"):
        data.local_files([f"{tmp_path}"], "--evaluate")


@pytest.mark.parametrize(
    ("pointer", "option"),
    [
        ("/prune/sparsity", "--sparsity"),
        ("/model", "--model"),
        ("/model/ref", "--model"),
        ("/labels/team", "--label"),
        ("/prune/budget/bytes", "--bytes"),
        ("/prune/calibration/tasks/0/samples", "--samples"),
        ("/prune/calibration/tasks/1/name", "--calibration (number 2)"),
        ("/prune/evaluation/windows", "--eval-windows"),
        ("/prune/gates/2/metric", "--gate (number 3)"),
        ("/prune/method/damp", "--set method.damp"),
        ("/prune/recovery/tasks/0", "--set recovery.tasks.0"),
    ],
)
def test_fields_have_their_options(pointer: str, option: str) -> None:
    assert flags.of_pointer(pointer) == option


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/prune/sparsity: input should be less than 1", "--sparsity: input should be less than 1"),
        (
            "give exactly one of `sparsity`, `budget` and x",
            "give exactly one of --sparsity, --parameters or --bytes and x",
        ),
        ("did you mean `prune.method.damp`?", "did you mean --set method.damp?"),
        ("did you mean `wanda`?", "did you mean `wanda`?"),
        ("the folder /srv/prune/model is no model", "the folder /srv/prune/model is no model"),
        (
            "weights share out `calibration.samples`: give it too",
            "weights share out --samples: give it too",
        ),
    ],
)
def test_messages_speak_of_options(text: str, told: str) -> None:
    assert flags.in_words(text) == told
