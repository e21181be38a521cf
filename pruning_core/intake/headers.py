"""Safetensors headers, read and checked before any library opens the file.

A hostile header can cost gigabytes to parse and may name tensors that are not there, so size and
arithmetic are checked first. Format: 8 bytes little-endian length, that many bytes of JSON, then the data.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning_core.errors import ModelInvalid

PREFIX_BYTES = 8
MAX_HEADER_BYTES = 25_000_000
MAX_TENSORS = 200_000
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorFacts:
    """What a header says of one tensor; `offset` counts from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return self.count * DTYPE_BYTES[self.dtype]


def read_header(path: Path) -> dict[str, TensorFacts]:
    """Return the tensors of one file by name.

    Raises:
        ModelInvalid: the header is truncated, too large, or contradicts itself or the file's size.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = header_length(path.name, file.read(PREFIX_BYTES), size)
        return parse_header(path.name, file.read(length), size)


def header_length(name: str, prefix: bytes, size: int) -> int:
    """Return how long the header of a file is that begins with these bytes and has this size.

    Raises:
        ModelInvalid: it is longer than the file, or than what is read here.
    """
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if len(prefix) < PREFIX_BYTES or length > size - PREFIX_BYTES:
        raise ModelInvalid(f"{name} is truncated: its header is longer than the file")
    if length > MAX_HEADER_BYTES:
        raise ModelInvalid(f"{name} has a header of {length} bytes; {MAX_HEADER_BYTES} are allowed")
    return length


def parse_header(name: str, raw: bytes, size: int) -> dict[str, TensorFacts]:
    """Return the tensors that the header of a file of this size lists.

    Raises:
        ModelInvalid: it contradicts itself or the file's size.
    """
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelInvalid(f"{name} has no readable header: {error}") from None
    if not isinstance(header, dict):
        raise ModelInvalid(f"{name} has no readable header: it is no JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise ModelInvalid(f"{name} lists {len(header)} tensors; {MAX_TENSORS} are allowed")
    return _checked(name, header, PREFIX_BYTES + len(raw), size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _checked(file: str, header: dict[str, Any], start: int, size: int) -> dict[str, TensorFacts]:
    tensors, spans = {}, []
    for name, entry in header.items():
        try:
            begin, end = entry["data_offsets"]
            facts = TensorFacts(entry["dtype"], tuple(entry["shape"]), start + begin)
            sound = (
                facts.dtype in DTYPE_BYTES
                and all(type(side) is int and side >= 0 for side in facts.shape)
                and type(begin) is int
                and type(end) is int
                and end - begin == facts.bytes
            )
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ModelInvalid(f"{file}: the header's entry for {name!r} contradicts itself")
        tensors[name] = facts
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ModelInvalid(f"{file}: its tensors overlap or leave holes")
        position = end
    if start + position != size:
        raise ModelInvalid(
            f"{file} is truncated or padded: it should have {start + position} bytes and has {size}"
        )
    return tensors
