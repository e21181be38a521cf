"""Text at a border: what strangers may send in, and how their text goes out to people and programs."""

from __future__ import annotations

import re
from typing import Any, Final

MESSAGE: Final = 2000
"""Characters of a message that goes out."""
_LINES = "\n\t"
VISIBLE: Final = (
    r"^[^\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]*$"
)
"""Pattern of a name without controls, marks that turn the direction of text, and marks that show nothing."""
_HIDDEN = re.compile(
    VISIBLE.replace("^[^", "[").replace("]*$", r"\U000e0000-\U000e007f\ud800-\udfff]")
)


def plain(text: str) -> str:
    """Return text that reads as what it is and can be written as UTF-8, on one line.

    Raises:
        ValueError: it holds controls, turns the direction of text, shows nothing in places, or is half a surrogate pair.
    """
    match = _HIDDEN.search(text)
    if match is not None:
        raise ValueError(
            f"U+{ord(match[0]):04X} is not taken: it is not shown, or shows the text around it as other text"
        )
    return text


def shown(text: str, limit: int | None = None) -> str:
    """Return text that can be written anywhere and reads as what it is; lines and tabs stay.

    Args:
        text: A stranger's.
        limit: Characters to keep; what is cut off is counted at the end.
    """
    kept = text if limit is None or len(text) <= limit else text[:limit]
    kept = _HIDDEN.sub(lambda match: match[0] if match[0] in _LINES else "\ufffd", kept)
    cut = len(text) - len(kept)
    return f"{kept} ... ({cut:,} more characters)" if cut else kept


def shown_document(document: Any, limit: int | None = None) -> Any:
    """Return a JSON document with every text in it, keys too, as `shown` returns it."""
    match document:
        case str():
            return shown(document, limit)
        case dict():
            return {
                shown(str(key), limit): shown_document(value, limit)
                for key, value in document.items()
            }
        case list() | tuple():
            return [shown_document(value, limit) for value in document]
    return document
