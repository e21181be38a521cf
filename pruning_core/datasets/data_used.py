"""Where a run's data comes from, and what of it was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pruning_core.datasets.tasks import NO_FILES, Data, Files, Split, Task, find, load
from pruning_core.spec.report_parts.data import DataReport, Overlap


@dataclass
class DataUsed:
    """Reads each split of a task once.

    Attributes:
        tasks_dir: The operator's tasks, or None.
        files: Uploaded files by the name that a specification gives them, `file:<id>`.
        cache_dir: Where downloads are kept; None for the hub library's own place.
        warnings: What the user must know of how the data was read.
        on_progress: Called with the number of splits that were read, after each.
    """

    tasks_dir: Path | None = None
    files: Files = field(default_factory=lambda: NO_FILES)
    cache_dir: Path | None = None
    warnings: list[str] = field(default_factory=list)
    on_progress: Callable[[int], None] = lambda _read: None
    _read: dict[tuple[str, Split], Data] = field(default_factory=dict)

    def find(self, name: str) -> Task:
        """Return a task by name."""
        return find(name, self.tasks_dir, self.files)

    def shown(self, name: str) -> str:
        """Return what messages call a task: an uploaded file by its sender's name too."""
        file = self.files.get(name)
        return f"{file.name} ({name})" if file is not None and file.name else name

    def split(self, name: str, split: Split, *, limit_bytes: int | None = None) -> Data:
        """Return one split of a task; of a hub's corpus, and of a text to evaluate, no more than `limit_bytes`."""
        if (name, split) not in self._read:
            task = self.find(name)
            limit = limit_bytes if task.origin == "hub" or split == "eval" else None
            self._read[name, split] = load(task, split, cache_dir=self.cache_dir, limit_bytes=limit)
            self.on_progress(len(self._read))
        return self._read[name, split]

    def warn(self, warning: str) -> None:
        """Note what the user must know, once."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def reports(self) -> tuple[DataReport, ...]:
        """Return what was read."""
        return tuple(
            DataReport(
                task=name,
                split=split,
                origin=data.task.origin,
                file=(data.task.file and data.task.file.name) or None,
                revision=data.revision,
                items=len(data.items),
                digest=data.digest,
                licence=data.task.declaration.licence,
            )
            for (name, split), data in self._read.items()
        )

    def distinct(self, name: str, split: Split) -> int:
        """Return how many different items a split that was read has."""
        return len({item.fingerprint for _, item in self._read[name, split].items})

    def overlaps(self) -> tuple[Overlap, ...]:
        """Return how many items of each evaluation split calibrate too."""
        prints = {
            key: {item.fingerprint for _, item in data.items} for key, data in self._read.items()
        }
        return tuple(
            Overlap(calibration_task=name, evaluation_task=other, items=len(shared))
            for (name, split), mine in prints.items()
            for (other, part), others in prints.items()
            if (split, part) == ("calibration", "eval") and (shared := mine & others)
        )
