"""The licence that a model folder names, in its card or by its licence file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pruning_core.printable import shown

_CARD = "README.md"
_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")
_READ_BYTES = 1 << 16
_FRONT_MATTER = re.compile(r"\A\s*---[ \t\r]*\n(?P<fields>.*?)\n---[ \t\r]*(\n|\Z)", re.DOTALL)
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.\-]{0,63}")
_LINK = re.compile(r"https?://[A-Za-z0-9][^\s<>\"'`()]{0,500}|[A-Za-z0-9][A-Za-z0-9._\-/]{0,200}")
"""A page, or a file beside the card: nothing that a reader's browser would run."""
_NAME = 200
_KNOWN = (
    (r"llama 3\.3 community license", "llama3.3"),
    (r"llama 3\.2 community license", "llama3.2"),
    (r"llama 3\.1 community license", "llama3.1"),
    (r"llama 3 community license", "llama3"),
    (r"llama 2 community license", "llama2"),
    (r"gemma terms of use", "gemma"),
    (r"apache license\s+version 2\.0", "apache-2.0"),
    (r"mit license", "mit"),
    (r"bsd 3-clause", "bsd-3-clause"),
    (r"creative commons attribution-noncommercial 4\.0", "cc-by-nc-4.0"),
    (r"creative commons attribution 4\.0", "cc-by-4.0"),
    (r"gnu affero general public license\s+version 3", "agpl-3.0"),
    (r"gnu general public license\s+version 3", "gpl-3.0"),
)
"""What the head of a licence file says, and the hub's identifier for it."""
_HEAD = 1000


@dataclass(frozen=True)
class Licence:
    """As the hub writes it: `other` goes with a name and a link."""

    identifier: str
    name: str | None = None
    link: str | None = None


def of_folder(folder: Path) -> Licence | None:
    """Return the licence that the model card states, else the one that the licence file is; None if unknown."""
    return _of_card(_text(folder / _CARD)) or _of_files(folder)


def _of_card(card: str) -> Licence | None:
    """Read three fields of the front matter; everything else in it is the author's business."""
    front = _FRONT_MATTER.match(card)
    if front is None:
        return None
    identifier = _field(front["fields"], "license")
    if identifier is None or not _IDENTIFIER.fullmatch(identifier.lower()):
        return None
    name, link = (_field(front["fields"], key) for key in ("license_name", "license_link"))
    known = link if link and _LINK.fullmatch(link) else None
    return Licence(identifier.lower(), name and shown(name, _NAME), known)


def _field(fields: str, key: str) -> str | None:
    """Return a plain value, or the first of a list."""
    pattern = rf"^{key}:[ \t]*(?:\n[ \t]*-[ \t]*|\[[ \t]*)?(?P<value>[^\s,\]\[#][^\n,\]#]*)"
    match = re.search(pattern, fields, flags=re.MULTILINE)
    return match["value"].strip().strip("\"'") if match else None


def _of_files(folder: Path) -> Licence | None:
    for name in _FILES:
        head = " ".join(_text(folder / name)[:_HEAD].lower().split())
        for pattern, identifier in _KNOWN:
            if re.search(rf"\b(?:{pattern})\b", head):
                return Licence(identifier)
    return None


def _text(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_READ_BYTES).decode("utf-8", errors="replace")
