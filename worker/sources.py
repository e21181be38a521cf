"""Brings the dense model to this machine: a folder below an allowed root, a GGUF file, or the hub."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pruning_core.checkpoints.facts import is_gguf
from pruning_core.checkpoints.private_view import view
from pruning_core.convert import from_gguf
from pruning_core.fetch import hub_download
from pruning_core.fetch.allowed_paths import allowed_path
from pruning_core.spec.model import ModelRef
from pruning_core.system.progress import Tracker

LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Source:
    """A Hugging Face folder, the root that its files may not leave, and the commit that a hub reference meant."""

    path: Path
    root: Path
    commit: str | None


def fetch(model: ModelRef, *, roots: Sequence[Path], cache_dir: Path, tracker: Tracker) -> Source:
    """Return the model's folder; what is in the cache is not fetched again. The tracker is told of every byte.

    Raises:
        ModelNotAllowed, ModelNotFound, ModelInvalid, ModelGated, UnsafePickle, HubUnavailable: as their names say.
    """
    if model.repo is not None:
        tracker.begin("downloading", unit="byte")
        with growth_told(hub_download.folder_of(model.repo, cache_dir), _of_download(tracker)):
            path, commit = hub_download.download(model.repo, model.revision, cache_dir)
        return Source(path, cache_dir, commit)
    assert model.path is not None
    path, root = allowed_path(model.path, roots)
    if not is_gguf(path):
        return Source(path, root, None)
    tracker.begin("converting", unit="byte")
    own = tempfile.TemporaryDirectory()
    with own as folder, view(model.path, Path(folder) / "view", root=root) as file:
        return Source(
            from_gguf.convert(file, cache_dir, _of_conversion(tracker), tracker.waiting),
            cache_dir,
            None,
        )


def _of_download(tracker: Tracker) -> Callable[[int], None]:
    return lambda grown: tracker.part(grown, 0, "byte")


def _of_conversion(tracker: Tracker) -> Callable[[int, int], None]:
    return lambda done, total: tracker.part(done, total, "byte")


@contextmanager
def growth_told(
    folder: Path, tell: Callable[[int], None], *, every: float = LOOK_SECONDS
) -> Iterator[None]:
    """Call `tell` with the bytes by which the files below `folder` have grown, as long as they grow: a slow download is no stall."""
    finished = threading.Event()

    def look() -> None:
        size = first = _size(folder)
        while not finished.wait(every):
            before, size = size, _size(folder)
            if size != before:
                tell(max(0, size - first))

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
