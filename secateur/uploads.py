"""Sending a file piece by piece, with the digest that the server shall find."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

_PIECE = 1 << 18
_MEDIA_TYPES = {
    ".jsonl": "application/jsonl",
    ".ndjson": "application/jsonl",
    ".json": "application/jsonl",
    ".txt": "text/plain",
    ".md": "text/plain",
    ".csv": "text/plain",
    ".tsv": "text/plain",
}
"""What is JSON and what is text; the service tells arrays from lines, and tables from documents."""
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{|\[\s*[{\[\"])")


def headers(path: Path) -> dict[str, str]:
    """Return type, length and digest of a file."""
    digest = hashlib.sha256()
    size = 0
    for piece in _read(path):
        digest.update(piece)
        size += len(piece)
    return {
        "Content-Type": _media_type(path),
        "Content-Length": str(size),
        "Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
    }


def body(path: Path, on_bytes: Callable[[int], None]) -> Callable[[], Iterator[bytes]]:
    """Return what begins the file anew at each attempt; what an attempt repeats is told as negative."""
    sent = 0

    def begin() -> Iterator[bytes]:
        nonlocal sent
        on_bytes(-sent)
        sent = 0
        for piece in _read(path):
            yield piece
            sent += len(piece)
            on_bytes(len(piece))

    return begin


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _media_type(path: Path) -> str:
    """Return what the name says; without a telling name, how the file begins."""
    known = _MEDIA_TYPES.get(path.suffix.lower())
    if known is not None:
        return known
    with path.open("rb") as file:
        begin = file.read(4096)
    return "application/jsonl" if _JSON.match(begin) else "text/plain"
