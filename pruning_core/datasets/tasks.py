"""The task catalogue: shipped declarations, the operator's, and the data of each from a folder, the hub or an upload."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from pydoc_data.topics import topics
from types import MappingProxyType
from typing import Literal

from pruning_core.datasets import declaration, hub_data, items, uploads
from pruning_core.datasets.declaration import Declaration, TaskKind
from pruning_core.datasets.items import ChoiceItem, Item, TextItem
from pruning_core.datasets.uploads import UserFile
from pruning_core.errors import DatasetInvalid, DatasetNotFound
from pruning_core.spec.calibration import BUILT_IN_TASK, FILE_PREFIX, SELF_TASK, TASK_NAME
from pruning_core.spec.prune import PruneSpec

Split = Literal["calibration", "eval"]
Origin = Literal["built-in", "folder", "hub", "file", "model"]
Files = Mapping[str, UserFile]
NO_FILES: Files = MappingProxyType({})
SPLITS: tuple[Split, ...] = ("calibration", "eval")
_SHIPPED = Path(__file__).parent / "catalogue"
_UNKNOWN_SIZE: tuple[Origin, ...] = ("hub", "model")
_HEAD_BYTES = 1 << 16

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One task of the catalogue.

    Attributes:
        name: As a specification names it.
        declaration: What its items are and how they are asked.
        origin: Where its data comes from; `model`: the dense model writes it.
        folder: Holds `calibration.jsonl`, `eval.jsonl` or both; None for another origin, or where the data is missing.
        file: The upload, for a name `file:<id>`.
    """

    name: str
    declaration: Declaration
    origin: Origin
    folder: Path | None = None
    file: UserFile | None = None

    @property
    def kind(self) -> TaskKind:
        """Documents, or questions with choices."""
        return self.declaration.kind

    @property
    def has_data(self) -> bool:
        """Whether it is known where its data lies."""
        return self.origin != "folder" or self.folder is not None

    def bytes(self, split: Split) -> int | None:
        """Return the size of a split, for texts an upper bound of its tokens; None where it is unknown, 0 without one."""
        if self.origin in _UNKNOWN_SIZE or not self.has_data:
            return None
        if self.file is not None:
            if split not in _splits_of(self.file):
                return 0
            return self.file.bytes if self.file.splits is None else self.file.splits[split].bytes
        if self.folder is None:
            return _built_in_bytes(split)
        path = self.folder / f"{split}.jsonl"
        return path.stat().st_size if path.is_file() else 0

    def items(self, split: Split) -> int | None:
        """Return how many items a split of an upload has; None where it is unknown."""
        sizes = None if self.file is None else self.file.splits
        return None if sizes is None else sizes[split].items


@dataclass(frozen=True)
class Data:
    """One split of a task as it was read.

    Attributes:
        items: Where each stands, for messages, and what it is.
        revision: Commit of a hub dataset.
    """

    task: Task
    split: Split
    items: tuple[tuple[str, Item], ...]
    revision: str | None = None

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` over the items in their order."""
        total = hashlib.sha256()
        for _, item in self.items:
            total.update(json.dumps(_content(item), sort_keys=True, default=str).encode() + b"\n")
        return f"sha256:{total.hexdigest()}"


def catalogue(tasks_dir: Path | None) -> dict[str, Task]:
    """Return every task by name; what the operator has of a name replaces what ships.

    A declaration of the operator that is invalid is left out with a warning; `find` says what is wrong with it.
    """
    tasks = {}
    for name in _names(tasks_dir):
        try:
            tasks[name] = _task(name, tasks_dir)
        except DatasetInvalid as error:
            log.warning("task.invalid: %s", error.message)
    return tasks


def find(name: str, tasks_dir: Path | None, files: Files = NO_FILES) -> Task:
    """Return the task of this name.

    Raises:
        DatasetNotFound: no task is called so, or it is declared and its data is nowhere.
        DatasetInvalid: the operator's declaration of it is invalid.
    """
    if name.startswith(FILE_PREFIX):
        return _uploaded(name, files)
    names = _names(tasks_dir)
    if name not in names:
        raise DatasetNotFound(
            f"No task is called {name!r}; GET /v1/tasks lists them.",
            suggestions=tuple(f"did you mean `{near}`?" for near in get_close_matches(name, names)),
        )
    task = _task(name, tasks_dir)
    if not task.has_data:
        raise DatasetNotFound(
            f"Task {name!r} has no data here: the operator adds {name}/calibration.jsonl and "
            f"{name}/eval.jsonl to the folder that SECATEUR_TASKS_DIR names."
        )
    return task


def evaluated(prune: PruneSpec, files: Files = NO_FILES) -> tuple[str, ...]:
    """Return what is measured: the tasks that are named, else those that calibrate, except uploads that only calibrate."""
    if prune.evaluation.tasks is not None:
        return prune.evaluation.tasks
    return tuple(
        name
        for name in prune.evaluation_tasks
        if name not in files or "eval" in _splits_of(files[name])
    )


def load(
    task: Task, split: Split, *, cache_dir: Path | None, limit_bytes: int | None = None
) -> Data:
    """Return the items of one split.

    Args:
        task: From `find`.
        split: Which.
        cache_dir: Where downloads are kept; None for the hub library's own place.
        limit_bytes: Stop after so much text.

    Raises:
        DatasetNotFound: the task has no such split, or the hub no such dataset.
        DatasetInvalid: a line is malformed; the message names file and line.
        DatasetUnreachable: the hub does not answer, or wants a licence accepted.
    """
    revision = None
    read: Iterable[tuple[str, Item]]
    if task.origin == "hub":
        assert task.declaration.hub is not None
        revision, read = hub_data.fetch(task.declaration.hub, split, cache_dir)
    else:
        read = _READERS[task.origin](task, split)
    split_items = tuple(_limited(_of_kind(read, task), limit_bytes))
    if not split_items:
        raise DatasetInvalid(f"Task {task.name!r} has no items to read in its split {split}.")
    return Data(task, split, split_items, revision)


def _names(tasks_dir: Path | None) -> list[str]:
    names = set(_shipped())
    if tasks_dir is not None and tasks_dir.is_dir():
        names |= {path.stem for path in tasks_dir.glob("*.toml") if path.is_file()}
        names |= {path.name for path in tasks_dir.iterdir() if _has_data(path)}
    return sorted(name for name in names if re.fullmatch(TASK_NAME, name))


@cache
def _shipped() -> Mapping[str, Declaration]:
    return {path.stem: declaration.read(path) for path in sorted(_SHIPPED.glob("*.toml"))}


def _has_data(folder: Path) -> bool:
    return any((folder / f"{split}.jsonl").is_file() for split in SPLITS)


def _task(name: str, tasks_dir: Path | None) -> Task:
    """Return a task whose name is known; a folder of data wins over the hub."""
    folder = None if tasks_dir is None else tasks_dir / name
    if folder is not None and not _has_data(folder):
        folder = None
    return _placed(name, _declared(name, tasks_dir, folder), folder)


def _declared(name: str, tasks_dir: Path | None, folder: Path | None) -> Declaration:
    own = None if tasks_dir is None else tasks_dir / f"{name}.toml"
    if own is not None and own.is_file():
        return declaration.read(own)
    if name in _shipped() and not (folder and name == BUILT_IN_TASK):
        return _shipped()[name]
    assert folder is not None
    return Declaration(kind=_kind(folder), description=f"{name}: JSON Lines of the operator.")


def _placed(name: str, declared: Declaration, folder: Path | None) -> Task:
    if folder is not None:
        return Task(name, declared, "folder", folder)
    if declared.hub is not None:
        return Task(name, declared, "hub")
    own: dict[str, Origin] = {BUILT_IN_TASK: "built-in", SELF_TASK: "model"}
    return Task(name, declared, own.get(name, "folder"))


def _kind(folder: Path) -> TaskKind:
    path = next(path for split in SPLITS if (path := folder / f"{split}.jsonl").is_file())
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return "multiple_choice" if b'"choices"' in head.lstrip().split(b"\n", 1)[0] else "text"


def _uploaded(name: str, files: Files) -> Task:
    if name not in files:
        raise DatasetNotFound(
            f"No uploaded file is called {name!r}.",
            suggestions=("list them with GET /v1/files", "upload it with POST /v1/files"),
        )
    declared = Declaration(kind=files[name].kind, description="An uploaded file.")
    return Task(name, declared, "file", file=files[name])


def _splits_of(file: UserFile) -> tuple[Split, ...]:
    splits: dict[uploads.Use, tuple[Split, ...]] = {
        "calibration": ("calibration",),
        "evaluation": ("eval",),
        "both": SPLITS,
    }
    return splits[file.use]


def _read_folder(task: Task, split: Split) -> Iterator[tuple[str, Item]]:
    path = None if task.folder is None else task.folder / f"{split}.jsonl"
    if path is None or not path.is_file():
        raise DatasetNotFound(
            f"Task {task.name!r} has no {split}.jsonl.",
            suggestions=("add the file to the task's folder", "name another task"),
        )
    with path.open("rb") as file:
        yield from items.read(_bounded(file.readline), f"{task.name}/{path.name}")


def _read_file(task: Task, split: Split) -> Iterator[tuple[str, Item]]:
    assert task.file is not None
    return uploads.items_of(task.file, split)


def _read_built_in(_: Task, split: Split) -> Iterator[tuple[str, Item]]:
    for topic, text in sorted(topics.items()):
        if _split_of(topic) == split:
            yield topic, TextItem(text)


def _read_model(task: Task, _: Split) -> Iterator[tuple[str, Item]]:
    raise DatasetInvalid(
        f"The text of task {task.name!r} is sampled from the dense model; it has no data to read and is not evaluated."
    )


_READERS: Mapping[Origin, Callable[[Task, Split], Iterator[tuple[str, Item]]]] = {
    "built-in": _read_built_in,
    "folder": _read_folder,
    "file": _read_file,
    "model": _read_model,
}


def _bounded(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield lines, of a longer one than `items` takes no more than shows that it is too long."""
    while line := readline(items.MAX_LINE_BYTES + 1):
        yield line


def _of_kind(read: Iterable[tuple[str, Item]], task: Task) -> Iterator[tuple[str, Item]]:
    wanted = TextItem if task.kind == "text" else ChoiceItem
    for where, item in read:
        if not isinstance(item, wanted):
            raise DatasetInvalid(f"{where}: task {task.name!r} is declared as {task.kind}")
        yield where, item


def _limited(read: Iterable[tuple[str, Item]], limit: int | None) -> Iterator[tuple[str, Item]]:
    total = 0
    for where, item in read:
        yield where, item
        total += len(item.text.encode()) if isinstance(item, TextItem) else 0
        if limit is not None and total >= limit:
            return


@cache
def _built_in_bytes(split: Split) -> int:
    return sum(len(text.encode()) for topic, text in topics.items() if _split_of(topic) == split)


def _split_of(topic: str) -> Split:
    """Assign a topic by the hash of its name, so that no change of another topic moves it."""
    return (
        "eval" if items.is_held_out(hashlib.sha256(topic.encode()).hexdigest()) else "calibration"
    )


def _content(item: Item) -> Mapping[str, object]:
    if isinstance(item, TextItem):
        return {"text": item.text, **({"turns": item.turns} if item.turns else {})}
    return {**item.fields, "choices": item.choices, "answer": item.answer}
