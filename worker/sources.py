"""Brings the dense model to this machine: a folder below an allowed root, a GGUF file, or the hub."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pruning_core.engine import gguf, hub
from pruning_core.intake.checkpoint import is_gguf
from pruning_core.intake.private import view
from pruning_core.intake.source import allowed_path
from pruning_core.spec.model import ModelRef

LOOK_SECONDS = 30.0


@dataclass(frozen=True)
class Source:
    """A Hugging Face folder, the root that its files may not leave, and the commit that a hub reference meant."""

    path: Path
    root: Path
    commit: str | None


def fetch(model: ModelRef, *, roots: Sequence[Path], cache_dir: Path) -> Source:
    """Return the model's folder; what is in the cache is not fetched again.

    Raises:
        ModelNotAllowed, ModelNotFound, ModelInvalid, ModelGated, UnsafePickle, HubUnavailable: as their names say.
    """
    if model.repo is not None:
        path, commit = hub.download(model.repo, model.revision, cache_dir)
        return Source(path, cache_dir, commit)
    assert model.path is not None
    path, root = allowed_path(model.path, roots)
    if not is_gguf(path):
        return Source(path, root, None)
    own = tempfile.TemporaryDirectory()
    with own as folder, view(model.path, Path(folder) / "view", root=root) as file:
        return Source(gguf.convert(file, cache_dir), cache_dir, None)


@contextmanager
def growth_told(
    folder: Path, tell: Callable[[], None], *, every: float = LOOK_SECONDS
) -> Iterator[None]:
    """Call `tell` as long as the files below `folder` grow: a slow download is no stall."""
    finished = threading.Event()

    def look() -> None:
        size = _size(folder)
        while not finished.wait(every):
            before, size = size, _size(folder)
            if size != before:
                tell()

    thread = threading.Thread(target=look, name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue  # renamed since it was listed
    return total
