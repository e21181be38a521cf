"""Datasets from the hub: the revision is resolved to a commit, then the declared files are fetched and read row by row."""

from __future__ import annotations

import errno
import gzip
import io
import json
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pruning_core import settings
from pruning_core.datasets.declaration import Hub, item_of, mapped
from pruning_core.datasets.items import MAX_LINE_BYTES, Item, TextItem, is_held_out
from pruning_core.errors import (
    DatasetAway,
    DatasetInvalid,
    DatasetNotFound,
    DatasetUnreachable,
    DiskFull,
    PruningError,
)
from pruning_core.fetch.hub_client import DESCRIPTION_SECONDS, describe, no_other_error, session

MAX_EXPANDED_BYTES = 4 << 30
MAX_EXPANSION = 1000
"""A file that grows more than this is made to fill memory or disk, not to be read."""
_BATCH_ROWS = 256
_FREELY = 1 << 20
"""So much is read before the growth is judged: a file of a few bytes says nothing."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]


def fetch(
    hub: Hub, split: Literal["calibration", "eval"], cache_dir: Path | None
) -> tuple[str, Iterator[tuple[str, Item]]]:
    """Return the commit that the revision means, and the items of one split, read as they are asked for.

    Interrupted downloads go on; what is in the cache is not fetched again.

    Raises:
        DatasetNotFound: no such dataset, revision or file.
        DatasetUnreachable: the hub does not answer, or wants a licence accepted.
        DatasetInvalid: a row is malformed, or a file grows without bound; raised while reading.
    """
    patterns = hub.calibration if split == "calibration" else hub.evaluation
    commit, paths = _download(hub, patterns, cache_dir)
    rows = chain.from_iterable(_rows(path, f"{hub.repo}/{name}") for name, path in paths)
    items = _joined(hub, rows) if hub.join is not None else _items(hub, rows)
    return commit, _side(items, split) if hub.calibration == hub.evaluation else items


def _download(
    hub: Hub, patterns: tuple[str, ...], cache_dir: Path | None
) -> tuple[str, list[tuple[str, Path]]]:
    from huggingface_hub import hf_hub_download

    with _hub_errors(hub), no_other_error():
        deadline = time.monotonic() + DESCRIPTION_SECONDS
        description = describe("datasets", hub.repo, hub.revision, deadline=deadline)
        names = _matching(hub, patterns, list(description.names))
        session()  # whose replies are checked
        paths = [
            hf_hub_download(
                hub.repo,
                name,
                repo_type="dataset",
                revision=description.commit,
                cache_dir=cache_dir and cache_dir / "hub",
                endpoint=settings.hub_address(),
            )
            for name in names
        ]
    return description.commit, list(zip(names, map(Path, paths), strict=True))


def _matching(hub: Hub, patterns: tuple[str, ...], held: list[str]) -> list[str]:
    names: dict[str, None] = {}
    for pattern in patterns:
        matches = sorted(name for name in held if fnmatchcase(name, pattern))
        if not matches:
            raise DatasetNotFound(
                f"{hub.dataset} at {hub.revision} has no file {pattern}: correct the declaration, or name another revision."
            )
        names |= dict.fromkeys(matches)
    return list(names)


def _items(hub: Hub, rows: Rows) -> Iterator[tuple[str, Item]]:
    for where, row in rows:
        item = item_of(mapped(hub, row, where), where)
        if item is not None:
            yield where, item


def _joined(hub: Hub, rows: Rows) -> Iterator[tuple[str, Item]]:
    """Yield one document of all rows, empty ones included: they are its blank lines."""
    texts = []
    for where, row in rows:
        text = mapped(hub, row, where)["text"]
        if not isinstance(text, str):
            raise DatasetInvalid(f"{where}: hub.item `text` is no text")
        texts.append(text)
    if any(text.strip() for text in texts):
        yield hub.repo, TextItem((hub.join or "").join(texts))


def _side(
    items: Iterable[tuple[str, Item]], split: Literal["calibration", "eval"]
) -> Iterator[tuple[str, Item]]:
    for where, item in items:
        if is_held_out(item.fingerprint) == (split == "eval"):
            yield where, item


def _rows(path: Path, label: str) -> Rows:
    if label.endswith(".parquet"):
        return _parquet(path, label)
    return _json_lines(path, label)


def _parquet(path: Path, label: str) -> Rows:
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            meta = file.metadata
            grown = sum(
                meta.row_group(index).total_byte_size for index in range(meta.num_row_groups)
            )
            _check_growth(grown, path.stat().st_size, label)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{label}, row {number}", row
    except PruningError:
        raise
    except (
        Exception
    ) as error:  # dates out of range, broken text: pyarrow lets Python's own errors through
        raise DatasetInvalid(
            f"{label}, after row {number}: no sound Parquet file: {error}"
        ) from None


def _json_lines(path: Path, label: str) -> Rows:
    with path.open("rb") as raw:
        if label.endswith(".gz"):
            size = path.stat().st_size
            lines = _lines(gzip.GzipFile(fileobj=raw), label)
            yield from _objects(_watched(lines, size, label), label)
        else:
            yield from _objects(_lines(raw, label), label)


def _lines(file: io.BufferedIOBase, label: str) -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_LINE_BYTES + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise DatasetInvalid(f"{label}, line {number}: no sound gzip file: {error}") from None
        if not line:
            return
        yield line


def _watched(lines: Iterable[bytes], size: int, label: str) -> Iterator[bytes]:
    grown = 0
    for line in lines:
        grown += len(line)
        _check_growth(grown, size, label)
        yield line


def _check_growth(grown: int, size: int, label: str) -> None:
    """Refuse a file that is small on the disk and endless in memory."""
    if grown > MAX_EXPANDED_BYTES or grown > max(_FREELY, size * MAX_EXPANSION):
        raise DatasetInvalid(
            f"{label}: {size} bytes grow to {grown} and more; a file may grow {MAX_EXPANSION} times, "
            f"to {MAX_EXPANDED_BYTES} bytes"
        )


def _objects(lines: Iterable[bytes], label: str) -> Rows:
    for number, line in enumerate(lines, 1):
        where = f"{label}, line {number}"
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            raise DatasetInvalid(f"{where}: longer than {MAX_LINE_BYTES} bytes")
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise DatasetInvalid(f"{where}: not a JSON object in UTF-8")
        yield where, content


@contextmanager
def _hub_errors(hub: Hub) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise DatasetUnreachable(
            f"{hub.dataset} is gated: accept its licence on the hub and give the worker a token (HF_TOKEN)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DatasetNotFound(f"{hub.dataset} has no revision {hub.revision!r}.") from error
    except errors.RepositoryNotFoundError as error:
        raise DatasetNotFound(
            f"{hub.dataset} does not exist on the hub, or is private: give the worker a token (HF_TOKEN)."
        ) from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFull(
                f"The disk is full of {hub.repo}: free space and submit again."
            ) from error
        raise _unreachable(hub, error) from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:  # type: ignore[attr-defined]  # of its HTTP library
        raise _unreachable(hub, error) from error


def _unreachable(hub: Hub, error: Exception) -> DatasetAway:
    return DatasetAway(
        f"The hub cannot be reached for {hub.dataset}: {error}",
        suggestions=("try again later", "upload the data with POST /v1/files", "name a local task"),
    )
