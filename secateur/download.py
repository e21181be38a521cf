"""Fetching a checkpoint: several files at once, resumed after a break, checked, and whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import httpx2

from secateur.errors import ApiError, DownloadError
from secateur.models import Manifest, ManifestFile
from secateur.transport import RETRIED, Transport, pause

THREADS = 3
CHUNK = 1 << 20


@dataclass(frozen=True)
class _Fetch:
    """What the threads of one download share."""

    transport: Transport
    job_id: str
    folder: Path
    on_bytes: Callable[[int], None]
    stop: threading.Event = field(default_factory=threading.Event)


def fetch(
    transport: Transport, manifest: Manifest, destination: Path, on_bytes: Callable[[int], None]
) -> Path:
    """Return the destination, holding exactly the manifest's files."""
    _check_paths(manifest)
    destination = destination.resolve()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        if _holds(destination, manifest):
            on_bytes(manifest.total_bytes)
            return destination
        raise DownloadError(
            f"{destination} exists and holds something else",
            code="DESTINATION_EXISTS",
            suggestions=("choose another folder", "remove it first"),
        )
    folder = destination.with_name(destination.name + ".partial")
    folder.mkdir(parents=True, exist_ok=True)
    _fetch_all(_Fetch(transport, manifest.job_id, folder, on_bytes), manifest)
    _remove_others(folder, manifest)
    _put_in_place(folder, destination)
    return destination


def _check_paths(manifest: Manifest) -> None:
    """Refuse names that lead out of the folder or clash on some file system: the server is not trusted here."""
    seen: set[str] = set()
    for file in manifest.files:
        parts = PurePosixPath(file.path).parts
        plain = file.path.isprintable() and not set('\\:*?"<>|') & set(file.path)
        inside = bool(parts) and not file.path.startswith("/") and ".." not in parts
        folded = str(PurePosixPath(file.path)).casefold()
        if not plain or not inside or folded in seen or folded.endswith(".part"):
            raise DownloadError(f"the manifest names {file.path!r}", code="UNSAFE_PATH")
        seen.add(folded)


def _holds(folder: Path, manifest: Manifest) -> bool:
    """Tell whether the folder holds the manifest's files, all of them and nothing else."""
    if not folder.is_dir():
        return False
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if present != {str(PurePosixPath(file.path)) for file in manifest.files}:
        return False
    return all(_is_whole(folder / file.path, file) for file in manifest.files)


def _is_whole(path: Path, file: ManifestFile) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes and _hash(path) == file.sha256


def _fetch_all(fetching: _Fetch, manifest: Manifest) -> None:
    with ThreadPoolExecutor(THREADS, "download") as pool:
        # Largest first, so that no thread is left alone with it at the end.
        files = sorted(manifest.files, key=lambda file: -file.bytes)
        futures = [pool.submit(_fetch_file, fetching, file) for file in files]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            fetching.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_file(fetching: _Fetch, file: ManifestFile) -> None:
    target = fetching.folder / file.path
    if not target.resolve().is_relative_to(fetching.folder.resolve()):
        raise DownloadError(f"{target} leads out of {fetching.folder}", code="UNSAFE_PATH")
    if _is_whole(target, file):
        fetching.on_bytes(file.bytes)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # The digest in the name keeps the rest of another job's file apart.
    part = target.with_name(f"{target.name}.{file.sha256[:16]}.part")
    resumed = _size(part) > 0
    fetching.on_bytes(_size(part))
    if not _complete(fetching, file, part) and not (resumed and _complete(fetching, file, part)):
        raise DownloadError(
            f"{file.path} does not have the sha256 that the manifest gives",
            code="DIGEST_MISMATCH",
            suggestions=("download again", "if it happens again, the server's copy is damaged"),
        )
    part.replace(target)


def _complete(fetching: _Fetch, file: ManifestFile, part: Path) -> bool:
    """Fetch what is missing and check it; a file that turns out wrong is removed."""
    failures = 0
    while (before := _size(part)) < file.bytes:
        try:
            _append(fetching, file, part)
            lost: Exception | None = None
        except httpx2.TransportError as error:
            lost = fetching.transport.unreachable(error)
        except ApiError as error:
            if error.status not in RETRIED:
                raise
            lost = error
        failures = 0 if _size(part) > before else failures + 1
        if failures > fetching.transport.retries:
            raise lost or DownloadError(f"{file.path} is cut short", code="TRUNCATED")
        if lost is not None:
            time.sleep(pause(failures))
    part.touch()
    if _is_whole(part, file):
        return True
    fetching.on_bytes(-_size(part))
    part.unlink()
    return False


def _append(fetching: _Fetch, file: ManifestFile, part: Path) -> None:
    have = _size(part)
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": f'"{file.sha256}"'}
    # Not the manifest's URL: the key is for this server alone.
    url = f"/v1/jobs/{fetching.job_id}/artifacts/{quote(file.path)}"
    with fetching.transport.stream(url, headers) as response:
        goes_on = response.status_code == 206
        fetching.on_bytes(0 if goes_on else -have)
        with part.open("ab" if goes_on else "wb") as output:
            for chunk in response.iter_raw(CHUNK):
                if fetching.stop.is_set():
                    raise DownloadError("another file failed", code="STOPPED")
                output.write(chunk)
                fetching.on_bytes(len(chunk))
                if output.tell() > file.bytes:
                    return
            output.flush()
            os.fsync(output.fileno())


def _remove_others(folder: Path, manifest: Manifest) -> None:
    wanted = {folder / file.path for file in manifest.files}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted:
            path.unlink()


def _put_in_place(folder: Path, destination: Path) -> None:
    if destination.is_dir():
        destination.rmdir()
    folder.rename(destination)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
