"""lm-evaluation-harness as a yardstick of somebody else's: its figures, and every way in which it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pruning_core.errors import DatasetUnreachable, HarnessUnavailable, NumericalFailure
from pruning_core.evaluate import lm_eval
from pruning_core.evaluate.lm_eval import HarnessFigure
from tests import tiny

needs_harness = pytest.mark.skipif(
    not lm_eval.available(), reason='lm_eval is not installed: pip install "secateur[eval]"'
)
CPU = torch.device("cpu")
FETCHED_METRIC = {
    "metric": "accuracy",
    "hf_evaluate": True,
    "aggregation": "mean",
    "higher_is_better": True,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model") / "tiny", "llama")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def declare(folder: Path, name: str, **changes: Any) -> None:
    """Write a task file and its data; JSON is YAML too."""
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    items = [
        {"question": f"{n} plus {n}?", "choices": [str(2 * n), "none"], "answer": n % 2}
        for n in range(6)
    ]
    data.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": metric} for metric in ("acc", "acc_norm")],
    }
    (folder / f"{name}.yaml").write_text(json.dumps(task | changes), encoding="utf-8")


@needs_harness
def test_a_task_of_the_operator_is_measured(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    declare(folder, "sums")
    rows = lm_eval.evaluate(model, ["sums"], limit=4, device=CPU, include=folder)
    assert [(row.task, row.metric, row.items) for row in rows] == [
        ("sums", "acc", 4),
        ("sums", "acc_norm", 4),
    ]
    for row in rows:
        assert row.value in {0.0, 0.25, 0.5, 0.75, 1.0}
        assert row.stderr is not None


@needs_harness
def test_an_unknown_task_is_named_with_its_neighbours(model: Path) -> None:
    with pytest.raises(HarnessUnavailable, match="'arc_esy'") as caught:
        lm_eval.evaluate(model, ["arc_esy"], limit=1, device=CPU)
    assert "arc_easy" in caught.value.suggestions


@needs_harness
def test_data_that_cannot_be_fetched_are_an_error_of_their_own(model: Path) -> None:
    with pytest.raises(DatasetUnreachable, match="arc_easy"):
        lm_eval.evaluate(model, ["arc_easy"], limit=1, device=CPU)


@needs_harness
@pytest.mark.parametrize(
    "changes",
    [{"unsafe_code": True}, {"metric_list": [FETCHED_METRIC]}],
    ids=["code that the model wrote", "a metric's code from a hub"],
)
def test_a_task_that_runs_foreign_code_is_refused(
    changes: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    declare(folder, "foreign", **changes)
    with pytest.raises(HarnessUnavailable, match="foreign runs code"):
        lm_eval.evaluate(model, ["foreign"], limit=1, device=CPU, include=folder)


def test_without_the_harness_the_message_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(HarnessUnavailable, match=r"secateur\[eval\]"):
        lm_eval.evaluate(tmp_path, ["arc_easy"], limit=1, device=CPU)


def test_both_models_figures_stand_side_by_side() -> None:
    dense = [HarnessFigure("boolq", "acc", 0.75, 0.1, 40)]
    pruned = [
        HarnessFigure("boolq", "acc", 0.5, 0.2, 40),
        HarnessFigure("boolq", "f1", 0.4, None, 40),
    ]
    found = lm_eval.metrics(dense, pruned)
    assert [(one.metric, one.dense, one.pruned) for one in found] == [
        ("acc", 0.75, 0.5),
        ("f1", None, 0.4),
    ]
    assert (found[0].dense_stderr, found[0].pruned_stderr, found[0].items) == (0.1, 0.2, 40)


def test_without_a_baseline_the_pruned_figures_stand_alone() -> None:
    (found,) = lm_eval.metrics(None, [HarnessFigure("boolq", "acc", 0.5, 0.2, 40)])
    assert (found.dense, found.dense_stderr, found.pruned) == (None, None, 0.5)


def test_a_figure_that_is_no_number_is_an_error() -> None:
    with pytest.raises(NumericalFailure, match="acc of boolq"):
        lm_eval.metrics(None, [HarnessFigure("boolq", "acc", float("nan"), None, 40)])
