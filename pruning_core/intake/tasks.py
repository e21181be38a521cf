"""The task catalogue: the built-in `python_docs` and every folder `<name>/{calibration,eval}.jsonl` of the operator."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

from pruning_core.errors import DatasetInvalid, DatasetNotFound
from pruning_core.spec.calibration import BUILT_IN_TASK, TASK_NAME

Split = Literal["calibration", "eval"]
TaskKind = Literal["text", "multiple_choice"]
_EVALUATION_SHARE = 0.25


@dataclass(frozen=True)
class TaskInfo:
    """One task of the catalogue. Bytes are an upper bound of its tokens."""

    name: str
    kind: TaskKind
    description: str
    built_in: bool
    calibration_bytes: int
    evaluation_bytes: int
    folder: Path | None = None


def catalogue(tasks_dir: Path | None) -> dict[str, TaskInfo]:
    """Return every task by name; the operator's folder of the same name replaces the built-in one."""
    tasks = {BUILT_IN_TASK: _python_docs()}
    if tasks_dir is not None and tasks_dir.is_dir():
        for folder in sorted(tasks_dir.iterdir()):
            if re.match(TASK_NAME, folder.name) and (folder / "calibration.jsonl").is_file():
                tasks[folder.name] = _folder_task(folder)
    return tasks


def find(name: str, tasks_dir: Path | None) -> TaskInfo:
    """Return the text task of this name.

    Raises:
        DatasetNotFound: no task is called so.
        DatasetInvalid: its items are not texts.
    """
    tasks = catalogue(tasks_dir)
    if name not in tasks:
        raise DatasetNotFound(f"No task is called {name!r}; there are: {', '.join(sorted(tasks))}")
    if tasks[name].kind != "text":
        raise DatasetInvalid(
            f"Task {name!r} holds multiple-choice items; only texts calibrate and evaluate so far."
        )
    return tasks[name]


def documents(task: TaskInfo, split: Split) -> list[str]:
    """Return the texts of one split, in file order.

    Raises:
        DatasetInvalid: a line is malformed; the message names file and line.
        DatasetNotFound: the task has no such split.
    """
    if task.folder is None:
        return [text for topic, text in sorted(topics.items()) if _split_of(topic) == split]
    path = task.folder / f"{split}.jsonl"
    if not path.is_file():
        raise DatasetNotFound(f"Task {task.name!r} has no {split}.jsonl")
    return list(_texts(path))


def _python_docs() -> TaskInfo:
    sizes = {"calibration": 0, "eval": 0}
    for topic, text in topics.items():
        sizes[_split_of(topic)] += len(text.encode())
    return TaskInfo(
        name=BUILT_IN_TASK,
        kind="text",
        description="The language reference that ships with CPython (pydoc_data.topics), split by topic.",
        built_in=True,
        calibration_bytes=sizes["calibration"],
        evaluation_bytes=sizes["eval"],
    )


def _split_of(topic: str) -> Split:
    """Assign a topic by the hash of its name, so that no change of another topic moves it."""
    share = int.from_bytes(hashlib.sha256(topic.encode()).digest()[:4], "big") / 2**32
    return "eval" if share < _EVALUATION_SHARE else "calibration"


def _folder_task(folder: Path) -> TaskInfo:
    evaluation = folder / "eval.jsonl"
    return TaskInfo(
        name=folder.name,
        kind=_kind(folder / "calibration.jsonl"),
        description=f"{folder.name}: JSON Lines of the operator.",
        built_in=False,
        calibration_bytes=(folder / "calibration.jsonl").stat().st_size,
        evaluation_bytes=evaluation.stat().st_size if evaluation.is_file() else 0,
        folder=folder,
    )


def _kind(path: Path) -> TaskKind:
    with path.open("rb") as file:
        head = file.read(65_536)
    return "multiple_choice" if b'"choices"' in head.split(b"\n", 1)[0] else "text"


def _texts(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)["text"]
            except (ValueError, KeyError, TypeError, RecursionError):
                text = None
            if not isinstance(text, str) or not text.strip():
                raise DatasetInvalid(
                    f"{path.parent.name}/{path.name}, line {number}: no JSON object with a `text`"
                )
            yield text
