"""What calibrates: mixing, windows and rows, first tokens, chats, the model's own text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.errors import DatasetTooSmall, ModelInvalid
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.evaluation import Evaluation
from pruning_core.text import self_generated
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.text.evaluation_text import evaluation_windows, spread
from pruning_core.text.task_reader import TaskReader
from pruning_core.text.windows import Windows
from tests import tiny
from tests.tiny import begin_texts

QUESTION = {"question": "Which?", "choices": ["this", "that one"], "answer": 1}


@pytest.fixture
def tasks_dir(tmp_path: Path) -> Path:
    root = tmp_path / "tasks"
    texts = [{"text": f"document {number} " + "x" * (20 + number)} for number in range(30)]
    write(root / "texts", texts)
    write(root / "asked", [QUESTION] * 12)
    return root


def write(folder: Path, lines: Iterable[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    for split in ("calibration", "eval"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))


def reads(folder: Path, tasks_dir: Path, *own: Callable[..., Any]) -> TaskReader:
    return TaskReader(folder, inspect(folder), DataUsed(tasks_dir), *own)


def decoded(folder: Path, windows: Windows) -> list[str]:
    tokenizer = tiny.tokenizer()
    return [tokenizer.decode(row) for group in windows.groups for row in group]


def test_weights_share_out_the_samples_to_the_last(
    dense: Callable[[str], Path], tasks_dir: Path
) -> None:
    asked = {
        "samples": 10,
        "seq_len": 16,
        "tasks": [{"name": "texts", "weight": 3}, "asked"],
    }
    found, _ = calibration_windows(
        reads(dense("llama"), tasks_dir), Calibration.model_validate(asked)
    )
    assert found.counts == {"texts": 7, "asked": 3}
    assert found.samples == 10
    assert [group.shape for group in found.groups] == [(10, 16)]


@pytest.mark.parametrize(
    ("weights", "total", "shares"),
    [([1, 1, 1], 10, [4, 3, 3]), ([1000, 1], 5, [4, 1]), ([0.5, 0.5], 2, [1, 1])],
)
def test_shares_are_exact_and_never_nothing(
    weights: list[float], total: int, shares: list[int]
) -> None:
    tasks = [{"name": f"t{index}", "weight": weight} for index, weight in enumerate(weights)]
    spec = Calibration.model_validate({"tasks": tasks, "samples": total})
    assert [spec.samples_of(task) for task in spec.tasks] == shares


@pytest.mark.parametrize(
    "asked",
    [
        {"tasks": [{"name": "a", "weight": 2}]},
        {"tasks": [{"name": "a", "samples": 2}], "samples": 4},
        {"tasks": ["a", "b"], "samples": 1},
        {"tasks": ["a"], "chat_template": True},
    ],
)
def test_contradictions_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(asked)


def test_rows_hold_one_document_each_and_no_padding(
    dense: Callable[[str], Path], tasks_dir: Path
) -> None:
    folder = dense("llama")
    asked = {"tasks": [{"name": "texts", "samples": 30}], "layout": "rows", "seq_len": 48}
    found, _ = calibration_windows(reads(folder, tasks_dir), Calibration.model_validate(asked))
    rows = decoded(folder, found)
    assert found.samples == 30
    assert found.seq_len == 48
    assert all(row.startswith("document ") for row in rows)
    assert len({row.split()[1] for row in rows}) == 30
    assert min(map(len, rows)) == len("document 0 ") + 20
    assert max(map(len, rows)) == 48
    assert found.tokens == sum(map(len, rows))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [(True, "Question: Which?\nAnswer: that one"), (False, "Question: Which?\nAnswer:")],
)
def test_questions_calibrate_with_their_right_answer_or_without(
    answers: bool, expected: str, dense: Callable[[str], Path], tasks_dir: Path
) -> None:
    folder = dense("llama")
    asked = {"tasks": ["asked"], "layout": "rows", "answers": answers}
    found, _ = calibration_windows(reads(folder, tasks_dir), Calibration.model_validate(asked))
    assert set(decoded(folder, found)) == {expected}


def test_a_chat_template_is_used_where_there_is_one(tmp_path: Path, tasks_dir: Path) -> None:
    asked = Calibration.model_validate(
        {"tasks": ["asked"], "layout": "rows", "chat_template": True}
    )
    folder = tiny.save(tmp_path / "m", "llama")
    with pytest.raises(ModelInvalid, match="no chat template"):
        calibration_windows(reads(folder, tasks_dir), asked)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"
    )
    found, _ = calibration_windows(reads(folder, tasks_dir), asked)
    assert set(decoded(folder, found)) == {"[user]Question: Which?\nAnswer:[assistant]that one"}


CHAT = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}
TEMPLATE = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}"


@pytest.mark.parametrize("layout", ["rows", "packed"])
def test_conversations_go_through_the_template_where_there_is_one(
    tmp_path: Path, layout: str
) -> None:
    write(tmp_path / "tasks/chats", [CHAT] * 12)
    folder = tiny.save(tmp_path / "m", "llama")
    asked = Calibration.model_validate({"tasks": ["chats"], "layout": layout, "seq_len": 48})
    data_used = DataUsed(tmp_path / "tasks")
    found, _ = calibration_windows(TaskReader(folder, inspect(folder), data_used), asked)
    assert "Why?\n\nSo." in decoded(folder, found)[0]
    assert "no chat template" in data_used.warnings[0]
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    data_used = DataUsed(tmp_path / "tasks")
    found, _ = calibration_windows(TaskReader(folder, inspect(folder), data_used), asked)
    assert "[user]Why?[assistant]So." in decoded(folder, found)[0]
    assert data_used.warnings == []


def test_conversations_are_evaluated_as_the_template_writes_them(tmp_path: Path) -> None:
    write(tmp_path / "tasks/chats", [CHAT] * 12)
    folder = tiny.save(tmp_path / "m", "llama")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    spec = Evaluation.model_validate({"windows": 2, "seq_len": 32})
    found = evaluation_windows(reads(folder, tmp_path / "tasks"), "chats", spec)
    assert "[user]Why?[assistant]So." in "".join(decoded(folder, found))


@pytest.mark.parametrize("layout", ["rows", "packed"])
@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0]['content'] + 1 }}",
        "{{ 1 // 0 }}",
        "{{ messages[7]['content'] }}",
        "{{ raise_exception('no') }}",
        "{% for m in messages %}",
        "{{ messages | nonsense }}",
        {"rag": "x", "tool_use": "y"},
    ],
)
def test_a_template_that_fails_is_the_model_s_fault(
    tmp_path: Path, template: Any, layout: str
) -> None:
    write(tmp_path / "tasks/chats", [CHAT] * 12)
    folder = tiny.save(tmp_path / "m", "llama")
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    named = (
        [{"name": name, "template": text} for name, text in template.items()]
        if isinstance(template, dict)
        else template
    )
    path.write_text(json.dumps(content | {"chat_template": named}))
    asked = {"tasks": ["chats"], "layout": layout, "chat_template": layout == "rows"}
    with pytest.raises(ModelInvalid, match="chat template fails"):
        calibration_windows(reads(folder, tmp_path / "tasks"), Calibration.model_validate(asked))


def test_windows_begin_with_the_first_token_where_asked_and_for_gemma_always(
    tmp_path: Path, tasks_dir: Path
) -> None:
    evaluation = {"windows": 3, "seq_len": 16}
    for model_type, changes, begins in (
        ("llama", {}, False),
        ("llama", {"bos": True}, True),
        ("gemma3_text", {}, True),
        ("gemma3_text", {"bos": False}, False),
    ):
        folder = tiny.save(tmp_path / f"{model_type}{len(changes)}", model_type)
        begin_texts(folder)
        spec = Evaluation.model_validate(evaluation | changes)
        (windows,) = evaluation_windows(reads(folder, tasks_dir), "texts", spec).groups
        first = windows[:, 0].tolist()
        assert first[1:] == [1, 1] if begins else 1 not in first[1:]
        assert windows.shape == (3, 16)


def test_a_first_token_that_the_tokenizer_has_not_is_refused(
    dense: Callable[[str], Path], tasks_dir: Path
) -> None:
    with pytest.raises(ModelInvalid, match="begins no text"):
        evaluation_windows(
            reads(dense("llama"), tasks_dir), "texts", Evaluation(bos=True, seq_len=16)
        )


def test_every_token_knows_its_document(dense: Callable[[str], Path], tasks_dir: Path) -> None:
    folder = dense("llama")
    found = evaluation_windows(
        reads(folder, tasks_dir), "texts", Evaluation(seq_len=16, windows=None)
    )
    assert found.units is not None
    tokenizer = tiny.tokenizer()
    for number in (0, 7, 29):
        inside = found.groups[0][found.units == number]
        assert tokenizer.decode(inside).strip().startswith(f"document {number} ")


@pytest.mark.parametrize(("seq_len", "windows", "documents"), [(16, 4, 2), (8, 1, None)])
def test_few_documents_are_still_told_apart_and_one_is_no_unit(
    dense: Callable[[str], Path],
    tasks_dir: Path,
    seq_len: int,
    windows: int,
    documents: int | None,
) -> None:
    asked = Evaluation(seq_len=seq_len, windows=windows)
    found = evaluation_windows(reads(dense("llama"), tasks_dir), "texts", asked)
    assert (None if found.units is None else len(set(found.units.flatten().tolist()))) == documents


@pytest.mark.parametrize(
    ("count", "chosen"), [(None, list(range(7))), (9, list(range(7))), (3, [0, 2, 4]), (1, [0])]
)
def test_items_are_spread_over_the_file(count: int | None, chosen: list[int]) -> None:
    assert spread(list(range(7)), count) == chosen


def test_what_is_held_out_calibrates_nothing(dense: Callable[[str], Path], tasks_dir: Path) -> None:
    asked = Calibration.model_validate(
        {"tasks": [{"name": "texts", "samples": 20}], "layout": "rows", "seq_len": 200}
    )
    reader = reads(dense("llama"), tasks_dir)
    mine, others = (
        set(decoded(Path(), part)) for part in calibration_windows(reader, asked, held_out=10)
    )
    assert (len(mine), len(others), mine & others) == (20, 10, set())
    with pytest.raises(DatasetTooSmall, match=r"30 samples.*20 were asked for beside 11"):
        calibration_windows(reader, asked, held_out=11)


def test_a_model_s_own_text_is_sampled_once_and_the_same_for_a_seed(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    def sampled(work: str, seed: int) -> torch.Tensor:
        device = torch.device("cpu")
        (tmp_path / work).mkdir(exist_ok=True)
        return self_generated.sample(
            dense("llama"), tmp_path / work, 3, 12, seed, model_digest="d", device=device
        )

    first = sampled("one", 0)
    assert first.shape == (3, 12)
    assert torch.equal(first, sampled("one", 0))
    assert len(list((tmp_path / "one").iterdir())) == 1
    assert torch.equal(first, sampled("two", 0))
    assert not torch.equal(first, sampled("two", 1))
    assert len(first.unique()) > 12  # a random model says everything


def test_own_text_takes_its_share_of_a_mixture(
    dense: Callable[[str], Path], tasks_dir: Path
) -> None:
    def own(count: int, length: int, seed: int) -> torch.Tensor:
        return torch.full((count, length), 9 + seed)

    asked = {"tasks": [{"name": "self", "samples": 2}, {"name": "texts", "samples": 3}]}
    spec = Calibration.model_validate(asked | {"seq_len": 16, "seed": 1})
    found, others = calibration_windows(reads(dense("llama"), tasks_dir, own), spec, held_out=2)
    assert found.counts == {"self": 2, "texts": 3}
    assert int((found.groups[0] == 10).all(dim=1).sum()) == 2
    assert others.counts == {"self": 1, "texts": 1}
