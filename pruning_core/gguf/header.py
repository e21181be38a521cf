"""GGUF headers, read and checked before any library opens the file.

Format: magic, version, two counts, key-value pairs, tensor infos, padding, data; all little-endian. Lengths are checked
against the file before anything of that length is read, and arrays of strings are counted, not kept.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from pruning_core.checkpoints.facts import GGUF_MAGIC
from pruning_core.checkpoints.headers import MAX_TENSORS
from pruning_core.checkpoints.stand_ins import HEAD_BYTES, refuse_stand_in
from pruning_core.errors import ModelInvalid, UnsupportedModel

VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_KEYS = 10_000
MAX_STRINGS = 2_000_000
MAX_STRING_BYTES = 1 << 24
MAX_NAME_BYTES = 1024
MAX_DIMENSIONS = 4
MAX_SIDE = 1 << 40
MAX_NUMBERS = 4096
"""Longer arrays of numbers, such as a tokenizer's scores, are counted and not kept."""

Value = int | float | bool | str | tuple[int | float | bool, ...]

TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
"""Name, weights and bytes of a block of every tensor type that can be decoded."""

_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """One tensor; `shape` has the longest-striding side first, as torch has it.

    Attributes:
        file: The part that holds it.
        kind: Name of its type.
        offset: From the start of that file.
        bytes: Size of its data.
    """

    file: Path
    kind: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True)
class GgufHeader:
    """What one file says before its data begin.

    Attributes:
        values: Values by key; of long arrays and of arrays of strings, only `lengths`.
        lengths: How many items every array has.
        tensors: By name.
        bytes: Size of the file.
    """

    values: dict[str, Value]
    lengths: dict[str, int]
    tensors: dict[str, GgufTensor]
    bytes: int


def read_gguf(path: Path) -> GgufHeader:
    """Return the header of one file.

    Raises:
        ModelInvalid: it is no GGUF file, truncated, or contradicts itself.
        UnsupportedModel: of another version or byte order, or with tensors of a type that cannot be decoded.
    """
    if not path.is_file():
        raise ModelInvalid(f"{path.name} is called .gguf and is no file")
    with path.open("rb") as file:
        return _Reader(path, file).header()


class _Reader:
    """Reads one file from its start; keeps the place and what may still be read."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = path.stat().st_size
        self._place = 0
        self._strings = MAX_STRINGS
        self._lengths: dict[str, int] = {}

    def header(self) -> GgufHeader:
        refuse_stand_in(self._path.name, self._file.read(HEAD_BYTES))
        self._file.seek(0)
        if self._take(len(GGUF_MAGIC)) != GGUF_MAGIC:
            self._fail("is no GGUF file: its first four bytes are not 'GGUF'")
        self._check_version()
        tensors, keys = self._count(MAX_TENSORS, "tensors"), self._count(MAX_KEYS, "keys")
        values: dict[str, Value] = {}
        for _ in range(keys):
            key = self._text(MAX_NAME_BYTES)
            if key in values or key in self._lengths:
                self._fail(f"names the key {key!r} twice")
            value = self._value(key)
            if value is not None:
                values[key] = value
        tensor_infos = self._tensors(tensors, values.get("general.alignment", ALIGNMENT))
        return GgufHeader(values, self._lengths, tensor_infos, self._size)

    def _check_version(self) -> None:
        version = int(self._number("I"))
        if version not in VERSIONS:
            swapped = version & 0xFFFF == 0
            fault = "is big-endian" if swapped else f"is GGUF version {version}"
            raise UnsupportedModel(
                f"{self._path.name} {fault}; little-endian files of the versions 2 and 3 are read",
                suggestions=("convert it again with a current llama.cpp",),
            )

    def _value(self, key: str) -> Value | None:
        kind = self._number("I")
        if kind == _STRING:
            return self._text(MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self._array(key)
        return self._number(self._format(kind))

    def _array(self, key: str) -> Value | None:
        kind, length = int(self._number("I")), int(self._number("Q"))
        self._lengths[key] = length
        if kind == _STRING:
            self._skip_strings(length)
            return None
        letter = self._format(kind)
        size = struct.calcsize(f"<{letter}") * length
        if length <= MAX_NUMBERS:
            return struct.unpack(f"<{length}{letter}", self._take(size))
        self._skip(size)
        return None

    def _skip_strings(self, length: int) -> None:
        if length > self._strings:
            self._fail(f"has arrays of more than {MAX_STRINGS} texts")
        self._strings -= length
        for _ in range(length):
            self._skip(int(self._number("Q")))

    def _format(self, kind: int | float) -> str:
        letter = _SCALARS.get(int(kind))
        if letter is None:
            self._fail(f"has a value of the unknown kind {kind}")
        return letter

    def _tensors(self, count: int, alignment: Value) -> dict[str, GgufTensor]:
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            self._fail(f"has the alignment {alignment!r}, which is no power of two")
        infos = [self._info() for _ in range(count)]
        start = -(-self._place // alignment) * alignment
        tensors, end = {}, start
        for name, kind, shape, offset, size in sorted(infos, key=lambda info: info[3]):
            if name in tensors or offset % alignment or start + offset < end:
                self._fail(f"lists its tensors so that {name!r} contradicts the others")
            end = start + offset + size
            if end > self._size:
                self._fail(f"is truncated: {name!r} ends at byte {end} of {self._size}")
            tensors[name] = GgufTensor(self._path, kind, shape, start + offset, size)
        return tensors

    def _info(self) -> tuple[str, str, tuple[int, ...], int, int]:
        name = self._text(MAX_NAME_BYTES)
        dimensions = self._number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            self._fail(f"gives {name!r} {dimensions} dimensions")
        sides = struct.unpack(f"<{dimensions}Q", self._take(8 * int(dimensions)))
        kind, offset = int(self._number("I")), int(self._number("Q"))
        if not all(0 < side <= MAX_SIDE for side in sides):
            self._fail(f"gives {name!r} the shape {list(sides)}")
        if kind not in TYPES:
            raise UnsupportedModel(f"{self._path.name} stores {name!r} in the unknown type {kind}")
        type_name, block, size = TYPES[kind]
        if sides[0] % block:
            self._fail(f"stores {name!r} in blocks of {block}, which do not divide {sides[0]}")
        return name, type_name, sides[::-1], offset, math.prod(sides) // block * size

    def _count(self, most: int, what: str) -> int:
        count = int(self._number("Q"))
        if count > most:
            self._fail(f"lists {count} {what}; {most} are allowed")
        return count

    def _number(self, letter: str) -> int | float | bool:
        form = f"<{letter}"
        number: int | float | bool = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return _shortest(number) if letter == "f" else number

    def _text(self, most: int) -> str:
        length = int(self._number("Q"))
        if length > most:
            self._fail(f"has a text of {length} bytes; {most} are allowed")
        return self._take(length).decode("utf-8", errors="replace")

    def _take(self, count: int) -> bytes:
        self._advance(count)
        return self._file.read(count)

    def _skip(self, count: int) -> None:
        self._advance(count)
        self._file.seek(count, 1)

    def _advance(self, count: int) -> None:
        self._place += count
        if self._place > self._size:
            self._fail("is truncated: it ends within its header")

    def _fail(self, why: str) -> NoReturn:
        raise ModelInvalid(f"{self._path.name} {why}")


def _shortest(number: float) -> float:
    """Return the shortest decimal of the same float32: 1e-05 for 9.99999974e-06."""
    for digits in range(6, 10):
        short = float(f"{number:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", number):
            return short
    return number  # NaN
