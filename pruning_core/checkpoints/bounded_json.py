"""JSON that strangers wrote: what reading it can cost is bounded before it is parsed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pruning_core.checkpoints.stand_ins import refuse_stand_in
from pruning_core.errors import ModelInvalid

MAX_DIGITS = 19
"""Of a whole number: no size, offset or token id has more, and arithmetic on long ones takes for ever."""
MAX_DEPTH = 32
_MARKS = (b"{", b"[", b",", b":")

Pairs = list[tuple[str, Any]]


def parse(
    name: str,
    raw: bytes,
    *,
    marks: int,
    what: str = "",
    pairs: Callable[[Pairs], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the JSON object of a file.

    Args:
        name: Of the file, for messages.
        raw: Its content.
        marks: Braces, brackets, commas and colons that it may have: every value costs one, whatever it holds.
        what: What of the file this is, where it is not all of it.
        pairs: Makes an object from its pairs.

    Raises:
        ModelInvalid: it is no JSON object, or costs too much.
    """
    refuse_stand_in(name, raw)
    subject = f"{name}: its {what}" if what else name
    count = sum(map(raw.count, _MARKS))
    if count > marks:
        raise ModelInvalid(f"{subject} holds some {count} values and keys; {marks} are allowed")
    try:
        content = json.loads(raw, parse_int=_whole, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise ModelInvalid(f"{subject} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ModelInvalid(f"{subject} cannot be read: it is no JSON object")
    if b"\\u" in raw and not is_text(content):
        raise ModelInvalid(f"{subject} cannot be read: half a surrogate pair is no character")
    return content


def is_text(content: Any) -> bool:
    """Tell whether every text in a document can be written as UTF-8."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_deep(content: Any, levels: int = MAX_DEPTH) -> bool:
    """Tell whether objects and lists lie within each other beyond so many levels."""
    if not isinstance(content, dict | list):
        return False
    inner = content.values() if isinstance(content, dict) else content
    return levels == 0 or any(is_deep(value, levels - 1) for value in inner)


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; {MAX_DIGITS} are allowed")
    return int(digits)
