"""Writing to disk so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pruning_core.errors import NO_SPACE, DiskFull, FolderInUse

LOCK = ".lock"
"""Empty file that is left in a folder: to remove it would let two in that opened it before and after."""
_CHUNK = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed to disk and takes `path`'s name."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder if need be and hold it: no other process or thread may work in it meanwhile.

    Raises:
        FolderInUse: another does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK, fcntl.LOCK_NB):
            yield
    except BlockingIOError:
        raise FolderInUse(
            f"Another process is at work in {folder}: wait for its end, or name another folder."
        ) from None


@contextmanager
def locked(path: Path, how: int = 0) -> Iterator[None]:
    """Hold the lock that a file stands for; wait for it, or with `LOCK_NB` raise BlockingIOError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(handle)  # which gives the lock back, as the end of the process does


def flush(path: Path) -> None:
    """Force a file's or folder's content to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file that never changes again a second name; a copy, on disk, where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        flush(Path(target))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as people read it."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def sha256(
    path: Path, copy: Path | None = None, *, on_bytes: Callable[[int], None] = lambda _bytes: None
) -> str:
    """Return the hex digest of a file, and where `copy` is given leave the very bytes there that it is of.

    `on_bytes` is called with the bytes of every piece that was read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file, (copy or Path(os.devnull)).open("wb") as output:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            output.write(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, quota or file-size limit, whoever reports it, into `DiskFull`."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise DiskFull(
                f"The disk, or the limit on it, that holds {folder.name} is full: free space and submit again."
            ) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Tell whether a disk, a quota or a limit is exhausted, whoever noticed."""
    if isinstance(error, OSError):
        return error.errno in NO_SPACE
    # safetensors raises a class of its own and leaves the number in the text
    return any(f"(os error {number})" in str(error) for number in NO_SPACE)
