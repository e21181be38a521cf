"""The artifact store that is a folder."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pruning_core.system.files import flush, link_or_copy, sha256
from store.artifact_store import OnBytes, Stored, no_key, parts_of
from store.drafts import Drafts, held
from store.errors import ArtifactNotFound
from store.private_folders import OWN_FILE, make_folder

_PIECE = 1 << 18


class LocalArtifacts:
    """An `ArtifactStore` in a folder; what is put and fetched is linked where the file system can.

    Args:
        root: Made when the first file arrives.
        drafts: On the same file system.
    """

    def __init__(self, root: Path, drafts: Drafts) -> None:
        self._root = root.absolute()
        self._drafts = drafts

    def put(
        self, source: Path, key: str, on_bytes: OnBytes = lambda _bytes: None
    ) -> tuple[int, str]:
        """Store a file: flushed to disk under a name of its own before it takes the key's."""
        target = self._path(key)
        if source.is_symlink() or not source.is_file():
            raise ArtifactNotFound(f"{source.name} is not a regular file")
        make_folder(target.parent)
        with self._drafts.place() as draft:
            link_or_copy(source, draft)
            draft.chmod(OWN_FILE)
            with held(draft):
                digest = sha256(draft, on_bytes=on_bytes)
                flush(draft)
                size = draft.stat().st_size
            draft.replace(target)
        flush(target.parent)
        return size, digest

    def open(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Return a file's bytes, or a range of them."""
        with self._file(key).open("rb") as file:
            file.seek(start)
            left = math.inf if stop is None else stop - start
            while piece := file.read(int(min(_PIECE, left))):
                left -= len(piece)
                yield piece

    def fetch(self, key: str, target: Path) -> None:
        """Link a file to `target`, or copy it."""
        link_or_copy(self._file(key), target)

    def stat(self, key: str) -> Stored | None:
        """Return what the file system knows."""
        path = self._path(key)
        if not path.is_file():
            return None
        status = path.stat()
        return Stored(status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def list(self, prefix: str) -> Iterator[str]:
        """Return the files below a folder as keys."""
        for path in self._path(prefix).rglob("*"):
            if path.is_file():
                yield path.relative_to(self._root).as_posix()

    def delete(self, key: str) -> None:
        """Remove one file."""
        self._path(key).unlink(missing_ok=True)

    def delete_below(self, prefix: str) -> None:
        """Remove a folder."""
        folder = self._path(prefix)
        if folder.is_dir():
            shutil.rmtree(folder)

    def presign(self, key: str, *, filename: str, media_type: str) -> None:  # noqa: ARG002
        """Return None: no URL leads to a file of this machine."""
        self._path(key)

    def _file(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise ArtifactNotFound(f"nothing is stored under {key!r}")
        return path

    def _path(self, key: str) -> Path:
        """Return where a key's bytes are: below the root, whatever links say."""
        target = self._root.joinpath(*parts_of(key))
        if not target.resolve().is_relative_to(self._root.resolve()):
            raise no_key(key)
        return target
