"""What a converted folder was made from: the file that the user gave, and its size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

FILE = "source.json"
"""Beside the converted weights; no part of the model."""


def record(folder: Path, files: Sequence[Path]) -> None:
    """Note in a converted folder which GGUF files it was made from."""
    size = sum(file.stat().st_size for file in files)
    (folder / FILE).write_text(json.dumps({"format": "gguf", "bytes": size}), encoding="utf-8")


def gguf_bytes(folder: Path) -> int | None:
    """Return the size of the GGUF files that a folder was converted from; None where it is no conversion."""
    path = folder / FILE
    if not path.is_file():
        return None
    return int(json.loads(path.read_bytes())["bytes"])
