"""The files of one GGUF model: one, or the parts that `gguf-split` makes of it, read as one header."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pruning_core.errors import ModelInvalid
from pruning_core.gguf.header import GgufHeader, read_gguf

_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
MAX_PARTS = 1024


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return all files of the model that `path` begins, as they lie beside that path.

    Raises:
        ModelInvalid: parts are missing, or `path` is none that begins a model.
    """
    values = read_gguf(path).values
    count, number = values.get("split.count", 1), values.get("split.no", 0)
    if count in (0, 1):
        return (path,)
    if type(count) is not int or not 1 < count <= MAX_PARTS:
        raise ModelInvalid(f"{path.name} says that it is one of {count} parts")
    named = _PART.match(path.name)
    if named is None or int(named["count"]) != count:
        raise ModelInvalid(
            f"{path.name} is part {number} of {count} (counted from 0), and its name does not say where the others are",
            suggestions=(
                f"keep the parts together, named NAME-00001-of-{count:05d}.gguf and so on",
                "merge them with llama.cpp's `gguf-split --merge`",
            ),
        )
    parts = tuple(
        path.with_name(f"{named['stem']}-{part:05d}-of-{count:05d}.gguf")
        for part in range(1, count + 1)
    )
    if number != 0 or int(named["number"]) != 1:
        raise ModelInvalid(
            f"{path.name} is part {named['number']} of {count}: name the first, {parts[0].name}"
        )
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ModelInvalid(
            f"{path.name} is the first of {count} parts; missing beside it: {', '.join(missing[:8])}"
        )
    return parts


def joined(parts: tuple[Path, ...]) -> GgufHeader:
    """Return one header for all parts; what the first says of the model holds.

    Raises:
        ModelInvalid: a part is none of this model, or a tensor is in two of them.
    """
    first, *others = [read_gguf(part) for part in parts]
    tensors = dict(first.tensors)
    for number, other in enumerate(others, 1):
        said = (other.values.get("split.no"), other.values.get("split.count"))
        twice = sorted(tensors.keys() & other.tensors.keys())
        if said != (number, len(parts)) or twice:
            why = (
                f"repeats {twice[0]!r}" if twice else f"says that it is part {said[0]} of {said[1]}"
            )
            raise ModelInvalid(f"{parts[number].name} does not continue {parts[0].name}: it {why}")
        tensors |= other.tensors
    promised = first.values.get("split.tensors.count", len(tensors))
    if len(parts) > 1 and promised != len(tensors):
        raise ModelInvalid(
            f"{parts[0].name} promises {promised} tensors in its parts; they hold {len(tensors)}"
        )
    size = sum(header.bytes for header in (first, *others))
    return replace(first, tensors=tensors, bytes=size)
