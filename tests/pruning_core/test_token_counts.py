"""Which tokens a vocabulary keeps, from text whose tokens the test knows; and what the report says of other text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.decide.token_counts import HELD, counted, coverage, template_ids
from pruning_core.decide.unit import decide
from pruning_core.errors import ModelInvalid
from pruning_core.evaluate.evaluation_set import EvaluationSet
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline import run as runs
from pruning_core.pipeline.phases import prune
from pruning_core.pipeline.report_warnings import uncovered_text
from pruning_core.pipeline.run import Run, fingerprint_of
from pruning_core.pipeline.unit_walk import dense_model
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.progress import Progress
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Origin, Report
from pruning_core.spec.report_parts.removal import VocabularyCoverage
from pruning_core.system.progress import Tracker
from pruning_core.text.calibration_text import every_item
from pruning_core.text.question_tokens import Encoded
from pruning_core.text.task_reader import TaskReader
from pruning_core.text.windows import Windows
from tests import tiny
from tests.pruning_core.runs import Watcher

WORDS = tuple(f"{first}{second}{third}" for first in "bcd" for second in "aei" for third in "kmn")
"""27 words, each one token."""
SPECIAL = ("<pad>", "<s>", "</s>", "<|turn|>")
ASKED: dict[str, Any] = {
    "method": {"name": "contextual", "parts": ["embedding"]},
    "calibration": {"tasks": ["words"], "samples": 1, "seq_len": 8},
    "evaluation": {"tasks": ["words"], "seq_len": 8, "windows": 4, "speed": False},
}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|turn|>' + ' dek ' }}"
    "{% else %} den {% endif %}{{ m['content'] }}{% endfor %}"
)


def tokenizer(*, template: str | None = None) -> Any:
    """Return one that reads words as whole tokens and everything else as bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelled = [f"Ġ{word}" for word in WORDS]
    merges, built = [], []
    for word in spelled:
        for end in range(2, len(word) + 1):
            if word[:end] not in built:
                merges.append((word[: end - 1], word[end - 1]))
                built.append(word[:end])
    names = [*SPECIAL, *letters, *built]
    vocab = {token: place for place, token in enumerate(names)}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|turn|>"],
        chat_template=template,
    )


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    def save(*, template: str | None = None) -> Path:
        made = tokenizer(template=template)
        folder = tiny.save(tmp_path / "dense", "llama", vocab_size=len(made) + 3)
        made.save_pretrained(folder)
        return folder

    return save


def task(
    root: Path, calibration: Sequence[str], evaluation: Sequence[str], *, name: str = "words"
) -> Path:
    for split, texts in (("calibration", calibration), ("eval", evaluation)):
        (root / name).mkdir(parents=True, exist_ok=True)
        lines = "\n".join(json.dumps({"text": text}) for text in texts)
        (root / name / f"{split}.jsonl").write_text(lines)
    return root


def pruned(folder: Path, tasks: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setenv("SECATEUR_TASKS_DIR", str(tasks))
    return prune(folder, PruneSpec.model_validate(ASKED), out)


def planned(
    folder: Path, tasks: Path, out: Path, **changes: Any
) -> tuple[Run, UnitPlan, list[Progress]]:
    """Decide what goes, and prune nothing."""
    watcher, spec = Watcher(), PruneSpec.model_validate(ASKED | changes)
    origin = Origin(model="m")
    run = runs.prepare(
        folder, spec, out, None, Tracker(watcher), DataUsed(tasks), runs.Provenance(origin)
    )
    with torch.no_grad():
        dense = dense_model(run, StreamedModel(folder, run.facts, torch.device("cpu")))
        return run, decide(dense, "fingerprint", begun=False), watcher.seen


def kept_words(plan: UnitPlan) -> set[str]:
    assert plan.vocabulary is not None
    kept = tokenizer().convert_ids_to_tokens(list(plan.vocabulary))
    return {word for word in WORDS if f"Ġ{word}" in kept}


@pytest.mark.parametrize("layout", ["packed", "rows"])
@pytest.mark.parametrize("documents", [3, 20])
def test_every_document_has_its_say_though_one_window_calibrates(
    layout: str, documents: int, model: Callable[..., Path], tmp_path: Path
) -> None:
    """One sample of eight tokens holds eight words at most; each document has one word of its own."""
    texts = [" " + " ".join([word] * 8) for word in WORDS[:documents]]
    tasks = task(tmp_path / "tasks", texts, [" " + " ".join(WORDS)])
    calibration = {"tasks": ["words"], "samples": 1, "seq_len": 8, "layout": layout}
    _, plan, seen = planned(model(), tasks, tmp_path / "out", calibration=calibration)
    assert kept_words(plan) == set(WORDS[:documents])
    assert any(
        one.phase == "calibrating" and (one.unit, one.step) == ("item", documents) for one in seen
    )


def test_several_tasks_are_all_counted(model: Callable[..., Path], tmp_path: Path) -> None:
    tasks = task(tmp_path / "tasks", [f" {WORDS[0]}" * 20], [f" {WORDS[0]}" * 40])
    task(tmp_path / "tasks", [f" {WORDS[1]}" * 20] * 3, [f" {WORDS[1]}" * 40], name="others")
    calibration = {"tasks": ["words", "others"], "samples": 2, "seq_len": 8}
    _, plan, _ = planned(model(), tasks, tmp_path / "out", calibration=calibration)
    assert kept_words(plan) == set(WORDS[:2])


def test_text_that_the_kept_tokens_do_not_cover_is_measured_and_warned_of(
    model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 28 predicted words of the evaluation text four are in no calibration text; each is spelled with four bytes."""
    known, strange = WORDS[:8], WORDS[20:24]
    text = "".join(f" {word}" for word in (*known[:4], *strange, *known * 3))
    tasks = task(tmp_path / "tasks", ["".join(f" {word}" for word in known * 3)], [text])
    report = pruned(model(), tasks, tmp_path / "out", monkeypatch)
    (found,) = report.vocabulary
    assert (found.task, found.tokens, found.tokens_after) == ("words", 28, 28 + 3 * 4)
    assert found.kept == pytest.approx(24 / 28)
    (warning,) = (one for one in report.warnings if "gone from the vocabulary" in one)
    assert "14.3%" in warning
    assert "Evaluated text and the tokens that stay" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(("kept", "warned"), [(1.0, 0), (0.991, 0), (0.989, 1), (0.2, 1)])
def test_low_coverage_is_warned_of(
    kept: float, warned: int, model: Callable[..., Path], tmp_path: Path
) -> None:
    tasks = task(tmp_path / "tasks", [f" {WORDS[0]}" * 20], [f" {WORDS[0]}" * 40])
    run, _, _ = planned(model(), tasks, tmp_path / "out")
    found = VocabularyCoverage(task="words", tokens=1000, kept=kept, tokens_after=None)
    assert len([*uncovered_text(run, [found])]) == warned


def test_other_text_is_another_run(model: Callable[..., Path], tmp_path: Path) -> None:
    """The window that calibrates is the same, the documents that choose tokens differ behind it."""
    folder, shared = model(), f" {WORDS[0]}" * 8
    found = {}
    for more in WORDS[1:3]:
        tasks = task(tmp_path / more, [shared, f" {more}"], [shared * 4])
        run, plan, _ = planned(folder, tasks, tmp_path / "out" / more)
        assert run.windows is not None
        found[fingerprint_of(run)] = run.windows.digest
        assert kept_words(plan) == {WORDS[0], more}
    assert len(found) == 2
    assert len({*found.values()}) == 1


def test_special_byte_and_template_tokens_never_go(
    model: Callable[..., Path], tmp_path: Path
) -> None:
    """However much is asked for: the text has one word, the template two others, in branches that no item takes."""
    tasks = task(tmp_path / "tasks", [f" {WORDS[0]}" * 20], [f" {WORDS[0]}" * 40])
    _, plan, _ = planned(model(template=TEMPLATE), tasks, tmp_path / "out", sparsity=0.9)
    assert kept_words(plan) == {WORDS[0], "dek", "den"}
    assert plan.vocabulary is not None
    kept = tokenizer().convert_ids_to_tokens(list(plan.vocabulary))
    assert {*kept} >= {*SPECIAL, *pre_tokenizers.ByteLevel.alphabet()}
    assert any("were asked for" in one for one in plan.warnings)


def test_template_tokens_are_those_of_every_branch_and_of_the_roles() -> None:
    made = tokenizer(template=TEMPLATE)
    found = {made.convert_ids_to_tokens(place) for place in template_ids(made)}
    assert found >= {"<|turn|>", "Ġdek", "Ġden", *"system", *"user", *"assistant"}
    assert "Ġbak" not in found
    assert template_ids(tokenizer()) == set()


@pytest.mark.parametrize("template", ["{{ 'open", "{{ '\\N{no such}' }}"])
def test_a_template_that_cannot_be_read_is_blamed(template: str) -> None:
    made = tokenizer(template=template)
    with pytest.raises(ModelInvalid, match="chat template cannot be read"):
        template_ids(made)


@pytest.mark.parametrize("rows", [0, 1, 3 * HELD // 1000])
def test_counts_are_exact_however_many_rows(rows: int) -> None:
    every = [[number % 7] * 1000 for number in range(rows)]
    expected = torch.bincount(torch.tensor(every, dtype=torch.int64).flatten(), minlength=9)
    assert counted(iter(every), 9).tolist() == expected.tolist()


def test_coverage_of_questions_and_of_zeroed_tokens() -> None:
    asked = Encoded(sequences=((0, 1, 2), (0, 1, 3)), starts=(2, 2), answer=0, lengths=(1, 1))
    windows = Windows((torch.tensor([[0, 1, 1, 4]]),), {"texts": 1})
    found = coverage((0, 1, 2), 5, EvaluationSet({"texts": windows}, {"asked": [asked]}), None)
    assert [(one.task, one.tokens, one.tokens_after) for one in found] == [
        ("texts", 3, None),
        ("asked", 4, None),
    ]
    assert [one.kept for one in found] == pytest.approx([2 / 3, 3 / 4])


def test_items_are_read_one_by_one(model: Callable[..., Path], tmp_path: Path) -> None:
    tasks = task(tmp_path / "tasks", [f" {word}" for word in WORDS], [f" {WORDS[0]}"])
    folder = model()
    reader = TaskReader(folder, inspect(folder), DataUsed(tasks))
    rows = every_item(reader, "words", Calibration(tasks=["words"]))
    assert iter(rows) is rows
    assert reader.tokenizer.decode(next(rows)) == f" {WORDS[0]}\n\n"
