"""The files of a tokenizer as JSON and as lines, and the ids in them that change."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pruning_core.errors import ModelInvalid
from pruning_core.system.user_faults import blamed_on

TOKENIZER = "tokenizer.json"
UNCLEAR_FILE = "tokenizer.json cannot be understood, so its vocabulary cannot be reduced"


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, empty where there is no file."""
    if not path.is_file():
        return {}
    with blamed_on(f"{path.name} is not JSON"):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def write_json(path: Path, content: Any) -> None:
    """Write JSON, characters as themselves."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, each ended by a line feed."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def new_id(old: int, new: dict[int, int], where: str) -> int:
    """Return the new id of a token.

    Args:
        old: Its id before.
        new: By old id.
        where: What names it, at the head of a message.

    Raises:
        ModelInvalid: it is gone.
    """
    if old not in new:
        raise ModelInvalid(
            f"{where} names token id {old}, which the tokenizer does not have or the model has no row for: "
            "correct it or set it to null."
        )
    return new[old]
