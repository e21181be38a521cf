"""The tasks of docs/add-a-task.md, made as the page says, are read as it says."""

from __future__ import annotations

import re
from pathlib import Path

from pruning_core.datasets.readings import questions
from pruning_core.datasets.tasks import find, load
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "add-a-task.md").read_text(encoding="utf-8")


def pieces(language: str) -> list[str]:
    """Return the page's pieces of one language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def add(root: Path, name: str, line: str, declaration: str | None = None) -> None:
    """Write a task's folder, and its declaration where it has one."""
    (root / name).mkdir(parents=True)
    for split in ("calibration", "eval"):
        (root / name / f"{split}.jsonl").write_text(f"{line}\n")
    if declaration is not None:
        (root / f"{name}.toml").write_text(declaration)


def prompts(root: Path, name: str) -> list[tuple[str, str]]:
    """Return prompt and continuation of every choice of a task's only item."""
    data = load(find(name, root), "eval", cache_dir=None)
    (question,) = questions(data)
    return list(zip(question.prompts, question.continuations, strict=True))


def test_tasks_are_read_as_the_page_says(tmp_path: Path) -> None:
    text, item = pieces("")[0].splitlines()
    declaration, letters, hub = pieces("toml")
    general, header, _ = declaration.partition("[template]")

    add(tmp_path, "plain", text)
    assert find("plain", tmp_path).kind == "text"
    add(tmp_path, "defaults", item)
    assert prompts(tmp_path, "defaults")[0] == ("optional\nQuestion: 2 + 2\nAnswer:", " 3")
    add(tmp_path, "declared", item, declaration)
    assert prompts(tmp_path, "declared")[1] == ("optional\nQuestion: 2 + 2\nAnswer:", " 4")
    add(tmp_path, "lettered", item, f"{general}{header}\n{letters}")
    assert prompts(tmp_path, "lettered") == [("2 + 2\nA. 3\nB. 4\nAnswer:", f" {x}") for x in "AB"]
    (tmp_path / "of_hub.toml").write_text(f"{general}\n{hub}")
    assert find("of_hub", tmp_path).origin == "hub"
