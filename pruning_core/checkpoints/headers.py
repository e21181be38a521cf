"""Safetensors headers, read and checked before any library opens the file.

A hostile header can cost gigabytes to parse and may name tensors that are not there, so bytes, values, axes and
sides are bounded before anything is computed of them. Format: 8 bytes little-endian length, that many bytes of JSON,
then the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning_core.checkpoints.bounded_json import Pairs, parse
from pruning_core.checkpoints.stand_ins import HEAD_BYTES, refuse_stand_in
from pruning_core.errors import ModelInvalid

PREFIX_BYTES = 8
MAX_HEADER_BYTES = 25_000_000
MAX_TENSORS = 65_536
"""Of one file: the largest mixtures of experts have fewer, all files together."""
MAX_AXES = 8
MAX_SIDE = 1 << 48
_MARKS = 20 * MAX_TENSORS
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


def read_headers(folder: Path, files: Sequence[str]) -> dict[str, dict[str, TensorFacts]]:
    """Return the tensors of each file by name; all headers together are as long as one may be.

    Raises:
        ModelInvalid: as `read_header`.
    """
    check_total(folder.name, map(_length, (folder / name for name in files)))
    return {name: read_header(folder / name) for name in files}


def check_total(model: str, lengths: Iterable[int]) -> None:
    """Refuse headers that are too long together.

    Raises:
        ModelInvalid: they are.
    """
    total = sum(lengths)
    if total > MAX_HEADER_BYTES:
        raise ModelInvalid(
            f"The headers of {model} have {total} bytes; {MAX_HEADER_BYTES} are allowed"
        )


def read_header(path: Path) -> dict[str, TensorFacts]:
    """Return the tensors of one file by name.

    Raises:
        ModelInvalid: the header is truncated, too large, or contradicts itself or the file's size.
    """
    length = _length(path)
    with path.open("rb") as file:
        file.seek(PREFIX_BYTES)
        return parse_header(path.name, file.read(length), path.stat().st_size)


def _length(path: Path) -> int:
    with path.open("rb") as file:
        return header_length(path.name, file.read(HEAD_BYTES), path.stat().st_size)


def header_length(name: str, head: bytes, size: int) -> int:
    """Return how long the header of a file is that begins with these bytes and has this size.

    Raises:
        ModelInvalid: it is longer than the file, or than what is read here; or the file stands for another.
    """
    refuse_stand_in(name, head)
    length = int.from_bytes(head[:PREFIX_BYTES], "little")
    if len(head) < PREFIX_BYTES or length > size - PREFIX_BYTES:
        raise ModelInvalid(f"{name} is truncated: its header is longer than the file")
    if length > MAX_HEADER_BYTES:
        raise ModelInvalid(f"{name} has a header of {length} bytes; {MAX_HEADER_BYTES} are allowed")
    return length


def parse_header(name: str, raw: bytes, size: int) -> dict[str, TensorFacts]:
    """Return the tensors that the header of a file of this size lists.

    Raises:
        ModelInvalid: it contradicts itself or the file's size.
    """
    header = parse(name, raw, marks=_MARKS, what="header", pairs=_unique)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise ModelInvalid(f"{name} lists {len(header)} tensors; {MAX_TENSORS} are allowed")
    return _checked(name, header, PREFIX_BYTES + len(raw), size)


def format_header(tensors: Mapping[str, TensorFacts]) -> bytes:
    """Return the start of a file that holds these tensors one after the other; their own offsets do not count."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, facts in tensors.items():
        end = position + facts.bytes
        header[name] = {
            "dtype": facts.dtype,
            "shape": facts.shape,
            "data_offsets": (position, end),
        }
        position = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % PREFIX_BYTES)
    return len(encoded).to_bytes(PREFIX_BYTES, "little") + encoded


def _unique(pairs: Pairs) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _checked(file: str, header: dict[str, Any], start: int, size: int) -> dict[str, TensorFacts]:
    tensors = {}
    for name, entry in header.items():
        facts = _facts(entry, start)
        if facts is None:
            raise ModelInvalid(f"{file}: the header's entry for {name!r} contradicts itself")
        tensors[name] = facts
    position = start
    for begin, count in sorted((facts.offset, facts.bytes) for facts in tensors.values()):
        if begin != position:
            raise ModelInvalid(f"{file}: its tensors overlap or leave holes")
        position += count
    if position != size:
        raise ModelInvalid(
            f"{file} is truncated or padded: it should have {position} bytes and has {size}"
        )
    return tensors


def _facts(entry: Any, start: int) -> TensorFacts | None:
    """Return what an entry says, None where it contradicts itself."""
    try:
        dtype, sides, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES or not _are_sides(sides):
        return None
    if type(begin) is not int or type(end) is not int:
        return None
    facts = TensorFacts(dtype, tuple(sides), start + begin)
    return facts if end - begin == facts.bytes else None


def _are_sides(shape: Any) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_AXES
        and all(type(side) is int and 0 <= side <= MAX_SIDE for side in shape)
    )
