"""What a converted folder was made from: the GGUF file that the user gave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

NOTE = "source.json"
"""Beside the converted weights; no part of the model."""


@dataclass(frozen=True)
class Gguf:
    """A GGUF file.

    Attributes:
        bytes: Of all its parts.
        type: Tensor type of most of them.
        pre: `tokenizer.ggml.pre`, how its tokenizer splits text.
    """

    bytes: int
    type: str
    pre: str | None = None


def record(folder: Path, gguf: Gguf) -> None:
    """Note in a converted folder what it was made from."""
    said = {"format": "gguf", "bytes": gguf.bytes, "type": gguf.type, "pre": gguf.pre}
    (folder / NOTE).write_text(json.dumps(said), encoding="utf-8")


def recorded(folder: Path) -> Gguf | None:
    """Return what a folder was converted from; None where nobody noted a conversion."""
    try:
        said = json.loads((folder / NOTE).read_bytes()[:1024])
        if said["format"] == "gguf":
            return Gguf(int(said["bytes"]), str(said["type"]), said["pre"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return None
