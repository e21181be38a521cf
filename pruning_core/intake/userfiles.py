"""Data that users bring: an uploaded file of texts or questions, named `file:<id>` in a job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from pruning_core.errors import DatasetInvalid, DatasetNotFound, DatasetTooSmall
from pruning_core.intake import items
from pruning_core.intake.items import MAX_LINE_BYTES, Item, TextItem
from pruning_core.spec.base import Frozen

Use = Literal["calibration", "evaluation", "both"]
Format = Literal["jsonl", "text"]
Kind = Literal["text", "multiple_choice"]
Split = Literal["calibration", "eval"]

_HEAD_BYTES = 4096
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BINARY = re.compile(
    rb"(?s)\x1f\x8b|PK[\x03\x05]|\x28\xb5\x2f\xfd|BZh[1-9]1AY&SY|\xfd7zXZ\x00"
    rb"|PAR1[\x00-\x08\x0b\x0c\x0e-\x1f]|SQLite format 3\x00|%PDF-"
)
"""How gzip, zip, zstd, bzip2, xz, parquet, SQLite and PDF files begin."""


class UserFile(Frozen):
    """An uploaded file that was found sound."""

    path: Path
    """JSON Lines or plain text in UTF-8."""
    name: str = ""
    """What its sender called it; empty where nobody said."""
    format: Format
    kind: Kind
    use: Use
    """`both`: a quarter of the items, by their hash, is held out for evaluation."""
    items: int
    bytes: int
    sha256: str


def examine(path: Path, *, format: Format | None = None, name: str) -> tuple[Format, Kind, int]:  # noqa: A002 - the upload's own word for it
    """Read a whole file, one line in memory at a time, and return its format, its kind and its number of items.

    Args:
        path: Where it lies.
        format: What the sender says it is. Unset: JSON Lines where it begins with `{`, else text.
        name: What its sender calls it; messages begin with it.

    Raises:
        DatasetInvalid: compressed or binary, not UTF-8, empty, or a line is no item.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        if _BINARY.match(head):
            raise DatasetInvalid(
                f"{name}: compressed and binary files are not taken; send JSON Lines or plain text"
            )
        chosen = format or _format_of(head)
        kind: Kind = "text"
        count = 0
        for _, item in _items(file, chosen, name):
            kind = "text" if isinstance(item, TextItem) else "multiple_choice"
            count += 1
    if not count:
        raise DatasetInvalid(f"{name}: empty; send one JSON object per line, or plain text")
    return chosen, kind, count


def read(file: UserFile) -> Iterator[tuple[str, Item]]:
    """Yield every item and where it stands.

    Raises:
        DatasetNotFound: the file was deleted.
        DatasetInvalid: it is not the file that was found sound.
    """
    name = file.path.name
    try:
        opened = file.path.open("rb")
    except FileNotFoundError:
        raise DatasetNotFound(f"The uploaded file {name} was deleted: upload it again") from None
    with opened:
        yield from _items(opened, file.format, name)


def items_of(file: UserFile, split: Split) -> Iterator[tuple[str, Item]]:
    """Return the items of one split and where they stand; equal items are all on the same side.

    Raises:
        DatasetNotFound: the file was uploaded for the other split alone, or was deleted.
        DatasetTooSmall: of the few items none falls to this split.
    """
    if file.use == "both":
        return _side(file, split)
    wanted = "calibration" if split == "calibration" else "evaluation"
    if file.use != wanted:
        raise DatasetNotFound(
            f"The uploaded file {file.path.name} is for {file.use} alone",
            suggestions=(f"upload it with the use `{wanted}` or `both`", "name another task"),
        )
    return read(file)


def _side(file: UserFile, split: Split) -> Iterator[tuple[str, Item]]:
    found = False
    for where, item in read(file):
        if _split_of(item) == split:
            found = True
            yield where, item
    if not found:
        raise DatasetTooSmall(
            f"Of the {file.items} items of the uploaded file {file.path.name}, which are shared out by their hash, "
            f"none falls to {split}",
            suggestions=("upload more items", "upload one file per use"),
        )


def _split_of(item: Item) -> Split:
    return "eval" if items.is_held_out(item.fingerprint) else "calibration"


def _format_of(head: bytes) -> Format:
    begin = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    return "jsonl" if begin.startswith(b"{") else "text"


def _items(file: BinaryIO, format: Format, name: str) -> Iterator[tuple[str, Item]]:  # noqa: A002
    lines = _lines(file, name)
    return items.read(lines, name) if format == "jsonl" else _documents(lines, name)


def _lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DatasetInvalid(f"{name}, line {number}: longer than {MAX_LINE_BYTES} bytes")
        if b"\0" in line:
            raise DatasetInvalid(
                f"{name}, line {number}: a NUL byte; binary files are not taken, nor is UTF-16: send UTF-8"
            )
        yield line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line


def _documents(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, Item]]:
    """Yield the passages between blank lines."""
    first, size, parts = 1, 0, list[str]()
    for number, line in enumerate(lines, 1):
        text = _decoded(line, f"{name}, line {number}")
        if not text.strip():
            if parts:
                yield f"{name}, line {first}", TextItem("".join(parts).rstrip("\r\n"))
            size, parts = 0, []
            continue
        first = first if parts else number
        size += len(line)
        if size > MAX_LINE_BYTES:
            raise DatasetInvalid(
                f"{name}, line {number}: the document is longer than {MAX_LINE_BYTES} bytes; "
                "blank lines separate documents"
            )
        parts.append(text)
    if parts:
        yield f"{name}, line {first}", TextItem("".join(parts).rstrip("\r\n"))


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{where}: not UTF-8 (byte {error.start})") from None
