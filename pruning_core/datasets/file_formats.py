"""How an uploaded file is read, one item in memory at a time: JSON Lines, an array of JSON objects, CSV, plain text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import BinaryIO, Literal

from pruning_core.datasets import items
from pruning_core.datasets.items import MAX_LINE_BYTES, Item, TextItem
from pruning_core.errors import DatasetInvalid

Format = Literal["jsonl", "json", "csv", "text"]

COLUMNS = (("text",), ("prompt", "completion"), ("instruction", "output"))
"""What the header of a CSV file must name; `input` may stand beside an instruction."""
_DELIMITERS = ",;\t|"
_TELLING: dict[str, Format] = {".csv": "csv", ".tsv": "csv", ".json": "json"}
_HINTS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text", ".md": "text"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ARRAY = re.compile(rb'\[\s*[\[{"\]]')
_OBJECT = re.compile(rb'\{\s*(?:"[^"\n]{0,200}"\s*:|\})')
_PIECE = 1 << 16
_WHITE = re.compile(r"\s*")


def format_of(head: bytes, declared: Format | None, name: str) -> Format:
    """Return the format of a file, which its content, its name and its sender's word decide together.

    Args:
        head: How it begins.
        declared: What its sender says; senders know too few types to tell tables from text, or arrays from lines.
        name: What its sender calls it.

    Raises:
        DatasetInvalid: it is called text and begins like JSON or a table.
    """
    begin = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    suffix = PurePath(name).suffix.lower()
    said = _TELLING.get(suffix) or declared or _HINTS.get(suffix)
    if said == "csv":
        return "csv"
    if _ARRAY.match(begin):
        chosen: Format = "json"
    elif said in ("jsonl", "json"):
        return "jsonl"
    elif _OBJECT.match(begin) or (said is None and begin.startswith(b"{")):
        chosen = "jsonl"
    else:
        header = begin.partition(b"\n")[0].decode(errors="replace")
        chosen = "csv" if len(_header(header)) > 1 else "text"
    if said == "text" != chosen:
        raise DatasetInvalid(
            f"{name}: called plain text, and begins like {'JSON' if chosen != 'csv' else 'CSV'}. "
            "Let its name end in .jsonl, .json or .csv, or say so by its Content-Type."
        )
    return chosen


def read(file: BinaryIO, format: Format, name: str) -> Iterator[tuple[str, Item]]:  # noqa: A002 - the upload's own word for it
    """Yield every item and where it stands.

    Raises:
        DatasetInvalid: something is no item; the message names its line or its number.
    """
    if format == "json":
        return items.of_one_kind(_array(file, name))
    lines = _lines(file, name)
    if format == "jsonl":
        return items.read(lines, name)
    return _table(lines, name) if format == "csv" else _documents(lines, name)


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


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{where}: not UTF-8 (byte {error.start})") from None


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


def _header(line: str) -> Sequence[str]:
    """Return the columns that a header names, empty where they are of no known kind."""
    for delimiter in _DELIMITERS:
        names = _cells(line, delimiter)
        if any(set(known) <= set(names) for known in COLUMNS):
            return names
    return ()


def _cells(line: str, delimiter: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]


def _delimiter(header: str) -> str:
    names = _header(header)
    return next(sign for sign in _DELIMITERS if _cells(header, sign) == names)


def _table(lines: Iterator[bytes], name: str) -> Iterator[tuple[str, Item]]:
    """Yield the rows under a header; its delimiter is the one that gives known columns."""
    texts = (_decoded(line, f"{name}, line {number}") for number, line in enumerate(lines, 1))
    header = next(texts, "")
    if not header.strip():
        return
    columns = _header(header)
    if not columns:
        known = ", ".join(" and ".join(f"`{column}`" for column in row) for row in COLUMNS)
        raise DatasetInvalid(
            f"{name}, line 1: no header with columns that are known ({known}); questions go as JSON Lines"
        )
    csv.field_size_limit(MAX_LINE_BYTES)
    yield from _rows(texts, _delimiter(header), columns, name)


def _rows(
    texts: Iterator[str], delimiter: str, columns: Sequence[str], name: str
) -> Iterator[tuple[str, Item]]:
    rows = csv.reader(texts, delimiter=delimiter, strict=True)
    while True:
        where = f"{name}, line {rows.line_num + 2}"
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise DatasetInvalid(f"{where}: no row of a CSV file: {error}") from None
        if cells is None:
            return
        if cells and len(cells) != len(columns):
            raise DatasetInvalid(f"{where}: {len(cells)} cells under {len(columns)} columns")
        if cells:
            yield where, items.item(dict(zip(columns, cells, strict=True)), where)


def _array(file: BinaryIO, name: str) -> Iterator[tuple[str, Item]]:
    """Yield the objects of one array."""
    text = _Text(file, name)
    try:
        text.skip("[", f"{name}: no array")
        number = 1
        while text.next() != "]":
            where = f"{name}, item {number}"
            if number > 1:
                text.skip(",", f"{where}: not JSON: no comma before it")
            content = text.value(where)
            items.check_writable(content, where)
            yield where, items.item(content, where)
            number += 1
        text.skip("]", name)
        if text.next():
            raise DatasetInvalid(f"{name}: the array ends, and something follows it")
    finally:
        text.detach()


class _Text:
    """A JSON text, of which no more is held than the value that is read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._reader = io.TextIOWrapper(file, encoding="utf-8-sig")
        self._name = name
        self._decoder = json.JSONDecoder(parse_constant=items.no_constant)
        self._held = ""
        self._place = 0

    def detach(self) -> None:
        """Leave the file open."""
        self._reader.detach()

    def next(self) -> str:
        """Return the next character that is no white space; empty at the end."""
        while True:
            match = _WHITE.match(self._held, self._place)
            assert match is not None
            self._place = match.end()
            if self._place < len(self._held):
                return self._held[self._place]
            if not self._read_on():
                return ""

    def skip(self, sign: str, otherwise: str) -> None:
        """Pass over a character that must be next."""
        if self.next() != sign:
            raise DatasetInvalid(otherwise)
        self._place += 1

    def value(self, where: str) -> object:
        """Return the object that is next."""
        if self.next() != "{":
            raise DatasetInvalid(f"{where}: not a JSON object")
        while True:
            try:
                content, self._place = self._decoder.raw_decode(self._held, self._place)
            except (ValueError, RecursionError) as error:
                unfinished = isinstance(error, json.JSONDecodeError) and self._read_on()
                if not unfinished or len(self._held) > MAX_LINE_BYTES + _PIECE:
                    raise DatasetInvalid(f"{where}: not JSON, or too long or too deep") from None
            else:
                return content

    def _read_on(self) -> bool:
        """Read as much again as is held, so that a long value is not scanned too often."""
        rest = self._held[self._place :]
        try:
            piece = self._reader.read(max(_PIECE, len(rest)))
        except UnicodeDecodeError:
            raise DatasetInvalid(f"{self._name}: not UTF-8") from None
        self._held, self._place = rest + piece, 0
        return bool(piece)
