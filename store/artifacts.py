"""Result files: bytes in a local folder, one row per file in the database."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import ArtifactNotFound
from store.tables import Artifact

REPORT_PAGE = "report.html"
_CHUNK = 1 << 20
_DRAFTS = "drafts"
DRAFT_SECONDS = 10
"""A younger draft may not be held yet."""
_OWN_FILE, _OWN_FOLDER = 0o600, 0o700
"""What users sent and what their models became is the service's alone, whatever the umask."""


@dataclass(frozen=True)
class ArtifactRow:
    """What is recorded of one file; `path` is what clients ask for, `key` where the bytes are."""

    path: str
    key: str
    sha256: str
    bytes: int
    media_type: str = "application/octet-stream"


def rows(session: Session, job_id: str) -> list[Artifact]:
    """Return a job's files by path."""
    return list(
        session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.path))
    )


def row(session: Session, job_id: str, path: str) -> Artifact:
    """Return one file's row.

    Raises:
        ArtifactNotFound: The job has no such file.
    """
    found = session.get(Artifact, (job_id, path))
    if found is None:
        raise ArtifactNotFound(
            f"job {job_id} has no file {path}: its manifest lists those there are"
        )
    return found


def attempt_prefix(job_id: str, epoch: int) -> str:
    """Return the key below which one attempt's artifacts lie; no two attempts share one."""
    return f"jobs/{job_id}/e{epoch}"


def report_page_key(prefix: str) -> str:
    """Return where an attempt's report for people lies: beside the checkpoint's files, in no manifest."""
    return f"{prefix}/{REPORT_PAGE}"


class LocalArtifacts:
    """A folder; a file appears under its key whole and on disk, or not at all.

    Args:
        root: Made when the first file arrives.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def path(self, key: str) -> Path:
        """Return where a key's bytes are.

        Raises:
            ArtifactNotFound: The key leads out of the folder.
        """
        parts = PurePosixPath(key).parts
        plain = parts and not key.startswith("/") and ".." not in parts and "\0" not in key
        target = self._root.joinpath(*parts)
        if not plain or not target.resolve().is_relative_to(self._root.resolve()):
            raise ArtifactNotFound(f"{key!r} is no key of the artifact store")
        return target

    def put(
        self, source: Path, key: str, told: Callable[[int], None] = lambda _bytes: None
    ) -> tuple[int, str]:
        """Store a regular file (linked where the file system can), and return its size and sha256.

        `told` is called with the bytes of every piece that was read.
        """
        target = self.path(key)
        if source.is_symlink() or not source.is_file():
            raise ArtifactNotFound(f"{source.name} is not a regular file")
        _make_folder(target.parent)
        temporary = self._new_draft()
        try:
            _link_or_copy(source, temporary)
            with _kept(temporary):
                size, digest = _sync_and_hash(temporary, told)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
        return size, digest

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Lend a new empty file on the store's own file system; it is gone afterwards."""
        path = self._new_draft()
        path.touch(mode=_OWN_FILE)
        try:
            with _kept(path):
                yield path
        finally:
            path.unlink(missing_ok=True)

    def sweep_drafts(self, *, older_than: float = DRAFT_SECONDS) -> None:
        """Remove the drafts of processes that were killed: nothing holds them any more."""
        for path in (self._root / _DRAFTS).glob("*"):
            with suppress(OSError):  # gone, held, or on a file system without locks
                if time.time() - path.stat().st_ctime >= older_than:
                    with path.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()

    def _new_draft(self) -> Path:
        folder = self._root / _DRAFTS
        _make_folder(folder)
        return folder / uuid4().hex

    def delete(self, key: str) -> None:
        """Remove one file; none there is fine."""
        self.path(key).unlink(missing_ok=True)

    def delete_prefix(self, prefix: str) -> None:
        """Remove everything below a prefix; nothing there is fine."""
        target = self.path(prefix)
        if target.is_dir():
            shutil.rmtree(target)


@contextmanager
def _kept(draft: Path) -> Iterator[None]:
    """Hold a draft, so that no sweep takes it; a process that dies lets it go."""
    with draft.open("rb") as file:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    target.chmod(_OWN_FILE)


def _sync_and_hash(path: Path, told: Callable[[int], None]) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        for chunk in _chunks(file.fileno()):
            digest.update(chunk)
            size += len(chunk)
            told(len(chunk))
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, _CHUNK):
        yield chunk


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=_OWN_FOLDER, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
