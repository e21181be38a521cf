"""One line of data, checked: a text, or a question with its choices and its answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pruning_core.errors import DatasetInvalid

MAX_LINE_BYTES = 1 << 24
"""A whole corpus may be one line, a mistake should not be."""
DEEP = 100
_NOT_WORDS = re.compile(r"[\W_]+")
_HELD_OUT_SHARE = 0.25


@dataclass(frozen=True)
class TextItem:
    """A document."""

    text: str

    @property
    def fingerprint(self) -> str:
        """Return the hash that equal items share."""
        return fingerprint(self.text)


@dataclass(frozen=True)
class ChoiceItem:
    """A question; `fields` holds everything that a template may use, `choices` among it.

    Attributes:
        fields: `question`, `context` (may be empty) and any further fields of the line.
        choices: Two or more different answers.
        answer: Index of the right one.
    """

    fields: Mapping[str, Any]
    choices: tuple[str, ...]
    answer: int

    @property
    def fingerprint(self) -> str:
        """Return the hash that equal items share, whatever the order of their choices."""
        told = (str(self.fields.get(name, "")) for name in ("context", "question"))
        return fingerprint(" ".join((*told, *sorted(self.choices))))


Item = TextItem | ChoiceItem


def fingerprint(text: str) -> str:
    """Return sha256 of the text's words alone: no case, spaces, punctuation."""
    return hashlib.sha256(_NOT_WORDS.sub("", text.casefold()).encode()).hexdigest()


def is_held_out(fingerprint: str) -> bool:
    """Tell whether data that is not split yet keeps this item for evaluation: a quarter, whatever the other items are."""
    return int(fingerprint[:8], 16) / 2**32 < _HELD_OUT_SHARE


def read(lines: Iterable[bytes], label: str) -> Iterator[tuple[str, Item]]:
    """Yield every item of a JSON Lines file and where it stands; empty lines are passed over.

    Args:
        lines: The file's lines.
        label: Its name in messages.

    Raises:
        DatasetInvalid: a line is no item, or of another kind than the first; the message names file and line.
    """
    kind: type[Item] | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{label}, line {number}"
        item = parse(line, where)
        kind = kind or type(item)
        if not isinstance(item, kind):
            raise DatasetInvalid(f"{where}: a file holds texts or questions, not both")
        yield where, item


def parse(line: bytes, where: str) -> Item:
    """Return one line's item.

    Raises:
        DatasetInvalid: not UTF-8, no JSON object, no text, lone surrogates, choices that are no choice, an answer out of range.
    """
    if len(line) > MAX_LINE_BYTES:
        raise DatasetInvalid(f"{where}: longer than {MAX_LINE_BYTES} bytes")
    try:
        content = json.loads(line.decode())
        if line.count(b"[") + line.count(b"{") > DEEP:
            json.dumps(content)  # what is read can be nested too deep to be written again
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{where}: not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError):
        raise DatasetInvalid(f"{where}: not JSON") from None
    if not isinstance(content, dict):
        raise DatasetInvalid(f"{where}: not a JSON object")
    if b"\\u" in line and not _encodable(content):
        raise DatasetInvalid(f"{where}: half a surrogate pair (\\ud800 to \\udfff) is no character")
    return item(content, where)


def item(content: Mapping[str, Any], where: str) -> Item:
    """Return the item that a mapping describes.

    Raises:
        DatasetInvalid: as `parse`.
    """
    if "choices" in content:
        return _choice(content, where)
    text = content.get("text")
    if not isinstance(text, str) or not text.strip():
        raise DatasetInvalid(f"{where}: no JSON object with a `text`, or with `choices`")
    return TextItem(text)


def _encodable(content: Mapping[str, Any]) -> bool:
    """Tell whether every text can be written as UTF-8: no tokenizer takes half a surrogate pair."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _choice(content: Mapping[str, Any], where: str) -> ChoiceItem:
    choices, answer = content["choices"], content.get("answer")
    if not isinstance(choices, list | tuple) or not all(isinstance(one, str) for one in choices):
        raise DatasetInvalid(f"{where}: `choices` is no list of texts")
    if len(choices) < 2 or not all(one.strip() for one in choices):
        raise DatasetInvalid(f"{where}: `choices` needs two texts or more, none of them empty")
    if len({one.strip() for one in choices}) < len(choices):
        raise DatasetInvalid(f"{where}: the same choice is there twice")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise DatasetInvalid(f"{where}: `answer` is no whole number (the right choice, from 0)")
    if not 0 <= answer < len(choices):
        raise DatasetInvalid(f"{where}: `answer` is {answer}, but there are {len(choices)} choices")
    told = {name: content.get(name) or "" for name in ("question", "context")}
    if not all(isinstance(one, str) for one in told.values()) or not any(told.values()):
        raise DatasetInvalid(f"{where}: neither a `question` nor a `context`")
    return ChoiceItem({**content, **told}, tuple(choices), answer)
