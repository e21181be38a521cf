"""A whole run with questions and texts: figures before and after, gates, leaks, the page and the card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning_core.errors import DataLeakage, DatasetInvalid
from pruning_core.pipeline.phases import prune
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.quality import Accuracy
from pruning_core.text.evaluation_text import spread
from tests import tiny
from tests.pruning_core.runs import Watcher, spec

LETTERS = "abcdefgh"
GATES = [
    {"metric": "texts.ppl_ratio", "max": 1e6},
    {"metric": "asked.acc", "min": 0.0},
    {"metric": "asked.acc_drop", "max": -2},
]


def question(number: int) -> dict[str, Any]:
    letter = LETTERS[number % len(LETTERS)]
    choices = [f"{letter * 3}", "zz", f"q{number}"]
    return {"question": f"Number {number}, {letter}?", "choices": choices, "answer": number % 3}


def write(folder: Path, split: str, lines: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    write(root / "asked", "calibration", [question(number) for number in range(40, 60)])
    write(root / "asked", "eval", [question(number) for number in range(30)])
    texts = [{"text": f"Document {number}. {LETTERS * (number % 4 + 1)}"} for number in range(24)]
    write(root / "texts", "calibration", texts[:12])
    write(root / "texts", "eval", texts[10:])
    write(root / "same", "calibration", texts[:12])
    write(root / "same", "eval", [*texts[3:9], texts[3]])
    return root


def mixed(**changes: Any) -> dict[str, Any]:
    return {
        "calibration": {"tasks": ["asked", "texts"], "layout": "rows", "seq_len": 48},
        "evaluation": {"tasks": ["texts", "asked"], "seq_len": 32, "items": 25},
    } | changes


@pytest.fixture(scope="module")
def run(
    tasks_dir: Path, dense: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Report, Watcher, Path]:
    out = tmp_path_factory.mktemp("out")
    watcher = Watcher()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECATEUR_TASKS_DIR", str(tasks_dir))
        wanted = spec(gates=GATES, **mixed())
        report = prune(dense("llama"), wanted, out, observer=watcher, base_model="org/dense")
    return report, watcher, out


def test_rows_of_unlike_length_all_calibrate(run: tuple[Report, Watcher, Path]) -> None:
    report, _, _ = run
    assert report.calibration is not None
    assert report.calibration.tasks == {"asked": 20, "texts": 12}
    assert report.calibration.tokens < 32 * 48
    assert 0.45 < report.sparsity < 0.55


def test_the_accuracies_are_those_of_the_stock_models(
    run: tuple[Report, Watcher, Path], dense: Callable[[str], Path]
) -> None:
    report, _, out = run
    (found,) = report.accuracy
    assert (found.task, found.items) == ("asked", 25)
    before = right_answers(dense("llama"))
    after = right_answers(out / "checkpoint")
    assert found.acc.dense == pytest.approx(sum(before) / 25)
    assert found.acc.pruned == pytest.approx(sum(after) / 25)
    lost = sum(was and not now for was, now in zip(before, after, strict=True))
    gained = sum(now and not was for was, now in zip(before, after, strict=True))
    assert (found.acc.lost, found.acc.gained) == (lost, gained)
    assert found.acc.pruned_interval.low < found.acc.pruned < found.acc.pruned_interval.high


@torch.no_grad()
def right_answers(folder: Path) -> list[bool]:
    """By one forward pass per choice."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = tiny.tokenizer()
    answers = []
    for asked in map(question, spread(range(30), 25)):
        prompt = tokenizer(f"Question: {asked['question']}\nAnswer:")["input_ids"]
        values = []
        for choice in asked["choices"]:
            ids = prompt + tokenizer(f" {choice}")["input_ids"]
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            values.append(
                sum(float(logits[at - 1, ids[at]]) for at in range(len(prompt), len(ids)))
            )
        answers.append(values.index(max(values)) == asked["answer"])
    return answers


def test_perplexity_has_intervals_over_documents_and_a_paired_ratio(
    run: tuple[Report, Watcher, Path],
) -> None:
    (found,) = run[0].perplexity
    assert found.resampled == "documents"
    assert found.units >= 10
    assert found.dense is not None
    assert found.ratio == pytest.approx(found.pruned / found.dense)
    for interval, value in (
        (found.dense_interval, found.dense),
        (found.pruned_interval, found.pruned),
        (found.ratio_interval, found.ratio),
    ):
        assert interval is not None
        assert interval.low < value < interval.high


def test_gates_say_what_they_found(run: tuple[Report, Watcher, Path]) -> None:
    report, _, _ = run
    assert [gate.passed for gate in report.gates] == [True, True, False]
    accuracy: Accuracy = report.accuracy[0]
    assert accuracy.acc.dense is not None
    assert report.gates[2].value == pytest.approx(accuracy.acc.dense - accuracy.acc.pruned)


def test_speed_is_measured_for_both_and_both_speak(run: tuple[Report, Watcher, Path]) -> None:
    report, _, _ = run
    assert report.speed is not None
    assert report.speed.dense is not None
    speeds = (report.speed.dense, report.speed.pruned)
    assert all(speed.prefill > speed.decode > 0 for speed in speeds)
    assert {*report.speed.ratios} == {"prefill", "decode"}
    doubted = any("Speed was not reliably measured" in one for one in report.warnings)
    assert doubted == bool(report.speed.doubts)
    assert report.verification.dense_sample
    assert report.verification.dense_sample != report.verification.sample


def test_data_and_its_overlap_are_named(run: tuple[Report, Watcher, Path]) -> None:
    report, _, _ = run
    assert {(one.task, one.split, one.origin, one.items) for one in report.data} == {
        ("asked", "calibration", "folder", 20),
        ("asked", "eval", "folder", 30),
        ("texts", "calibration", "folder", 12),
        ("texts", "eval", "folder", 14),
    }
    (overlap,) = report.overlaps
    assert (overlap.calibration_task, overlap.evaluation_task, overlap.items) == (
        "texts",
        "texts",
        2,
    )
    assert any(
        "2 items of the evaluation split of texts are in the calibration" in line
        for line in report.warnings
    )


def test_progress_reaches_the_end_in_order(run: tuple[Report, Watcher, Path]) -> None:
    percents = [progress.percent for progress in run[1].seen]
    assert percents == sorted(percents)
    assert percents[-1] > 95


def test_the_page_and_the_card_lie_where_they_belong(run: tuple[Report, Watcher, Path]) -> None:
    report, _, out = run
    page = (out / "report.html").read_text()
    assert "asked" in page
    assert "<svg" in page
    card = (out / "checkpoint" / "README.md").read_text()
    assert "base_model: org/dense" in card
    assert "README.md" in {entry.path for entry in report.files}


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({"metric": "asked.ppl", "max": 9}, "asked.acc"),
        ({"metric": "texts.acc", "min": 0.5}, "texts.ppl_ratio"),
    ],
)
def test_a_gate_on_a_figure_that_is_not_there_is_refused_first(
    gate: dict[str, Any],
    message: str,
    tasks_dir: Path,
    dense: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECATEUR_TASKS_DIR", str(tasks_dir))
    with pytest.raises(DatasetInvalid, match=message):
        prune(dense("llama"), spec(gates=[gate], **mixed()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_evaluating_on_what_calibrates_is_refused(
    tasks_dir: Path,
    dense: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECATEUR_TASKS_DIR", str(tasks_dir))
    changes = mixed(calibration={"tasks": ["same"], "seq_len": 16})
    with pytest.raises(DataLeakage, match="Every item"):
        prune(
            dense("llama"),
            spec(**changes | {"evaluation": {"tasks": ["same"], "seq_len": 16}}),
            tmp_path,
        )
