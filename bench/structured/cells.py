"""Figures kept cell by cell in a JSON file that several processes may write."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning_core.errors import PruningError


@contextmanager
def opened(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the results, and write back what became of them; nobody else does so meanwhile."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = json.loads(file.read() or "{}")
        yield content
        text = json.dumps(content, indent=1) + "\n"
        file.seek(0)
        file.truncate()
        file.write(text)


def read(path: Path) -> dict[str, Any]:
    """Return the results as they are now."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        content: dict[str, Any] = json.loads(file.read() or "{}")
        return content


@dataclass(frozen=True)
class Kept:
    """The cells of one table, one model and one set of conditions."""

    path: Path
    table: str
    model: str
    conditions: str

    def __contains__(self, key: str) -> bool:
        return key in self._cells(read(self.path))

    def keep(self, key: str, cell: dict[str, Any]) -> None:
        """Store a cell."""
        with opened(self.path) as results:
            self._cells(results)[key] = cell
        print(self.model, "|", key, json.dumps(cell), flush=True)

    def _cells(self, results: dict[str, Any]) -> dict[str, Any]:
        cells: dict[str, Any] = (
            results.setdefault(self.table, {})
            .setdefault(self.model, {})
            .setdefault(self.conditions, {})
        )
        return cells


def amount(ratio: float) -> str:
    """Return a share as keys of cells name it."""
    return f"{100 * ratio:g} %"


def fill(kept: Kept, key: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure what is missing; what breaks is said and left out, so that the others are still measured."""
    if key in kept:
        return
    try:
        kept.keep(key, measure())
    except PruningError as error:
        print(kept.model, "|", key, "failed:", error.code, error.message, flush=True)
