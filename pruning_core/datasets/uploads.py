"""Data that users bring: an uploaded file of texts or questions, named `file:<id>` in a job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Strict

from pruning_core.datasets import file_formats, items
from pruning_core.datasets.file_formats import Format
from pruning_core.datasets.items import Item, TextItem
from pruning_core.errors import DatasetInvalid, DatasetNotFound, DatasetTooSmall
from pruning_core.spec.base import Frozen

Use = Literal["calibration", "evaluation", "both"]
Kind = Literal["text", "multiple_choice"]
Split = Literal["calibration", "eval"]
SPLITS: tuple[Split, ...] = ("calibration", "eval")
SEPARATOR = "\n\n"
"""Between documents that are joined."""

_HEAD_BYTES = 4096
_BINARY = re.compile(
    rb"(?s)\x1f\x8b|PK[\x03\x05]|\x28\xb5\x2f\xfd|BZh[1-9]1AY&SY|\xfd7zXZ\x00"
    rb"|PAR1[\x00-\x08\x0b\x0c\x0e-\x1f]|SQLite format 3\x00|%PDF-"
)
"""How gzip, zip, zstd, bzip2, xz, parquet, SQLite and PDF files begin."""


LocalPath = Annotated[Path, Strict(strict=False)]
"""JSON has texts for it."""


class SplitSize(Frozen):
    """How much of a file one split has."""

    items: int = 0
    bytes: int | None = 0
    """Of the text alone; None where a chat template or a question's template adds to it."""


class UserFile(Frozen):
    """An uploaded file that was found sound."""

    path: LocalPath
    """In UTF-8."""
    name: str = ""
    """What its sender called it; empty where nobody said."""
    format: Format
    kind: Kind
    use: Use
    """`both`: a quarter of the items, by their hash, is held out for evaluation."""
    items: int
    bytes: int
    sha256: str
    splits: Mapping[Split, SplitSize] | None = None
    """None of files that were examined before this was counted."""


class Examined(Frozen):
    """What was found out about a sound file."""

    format: Format
    kind: Kind
    items: int
    splits: Mapping[Split, SplitSize]
    """As it is shared out with the use `both`."""

    def sizes(self, use: Use) -> Mapping[Split, SplitSize]:
        """Return how much each split has with this use."""
        if use == "both":
            return self.splits
        first, second = self.splits.values()
        only = "eval" if use == "evaluation" else "calibration"
        return {split: _joined(first, second) if split == only else SplitSize() for split in SPLITS}


def examine(path: Path, *, format: Format | None = None, name: str) -> tuple[Format, Kind, int]:  # noqa: A002 - the upload's own word for it
    """Return the format, the kind and the number of items of a file, as `survey` finds them."""
    examined = survey(path, format=format, name=name)
    return examined.format, examined.kind, examined.items


def survey(path: Path, *, format: Format | None = None, name: str) -> Examined:  # noqa: A002
    """Read a whole file, one item in memory at a time, and return what it holds.

    Args:
        path: Where it lies.
        format: What the sender says it is; its name and how it begins weigh more (`file_formats.format_of`).
        name: What its sender calls it; messages begin with it.

    Raises:
        DatasetInvalid: compressed or binary, not UTF-8, empty, or a line is no item.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        if _BINARY.match(head):
            raise DatasetInvalid(
                f"{name}: compressed and binary files are not taken; send JSON Lines, a JSON array, CSV or plain text"
            )
        chosen = file_formats.format_of(head, format, name)
        kind: Kind = "text"
        splits = dict.fromkeys(SPLITS, SplitSize())
        for _, item in file_formats.read(file, chosen, name):
            kind = "text" if isinstance(item, TextItem) else "multiple_choice"
            split = _split_of(item)
            splits[split] = _joined(splits[split], SplitSize(items=1, bytes=_text_bytes(item)))
    count = sum(size.items for size in splits.values())
    if not count:
        raise DatasetInvalid(
            f"{name}: empty; send one JSON object per line, an array of objects, CSV, or plain text"
        )
    return Examined(format=chosen, kind=kind, items=count, splits=splits)


def _joined(first: SplitSize, second: SplitSize) -> SplitSize:
    known = None not in (first.bytes, second.bytes)
    total = (first.bytes or 0) + (second.bytes or 0) if known else None
    return SplitSize(items=first.items + second.items, bytes=total)


def _text_bytes(item: Item) -> int | None:
    if not isinstance(item, TextItem) or item.turns:
        return None
    return len(item.text.encode()) + len(SEPARATOR)


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
        yield from file_formats.read(opened, file.format, name)


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
    has_items = False
    for where, item in read(file):
        if _split_of(item) == split:
            has_items = True
            yield where, item
    if not has_items:
        raise DatasetTooSmall(
            f"Of the {file.items} items of the uploaded file {file.path.name}, which are shared out by their hash, "
            f"none falls to {split}",
            suggestions=("upload more items", "upload one file per use"),
        )


def _split_of(item: Item) -> Split:
    return "eval" if items.is_held_out(item.fingerprint) else "calibration"
