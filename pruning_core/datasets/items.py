"""One line of data, checked: a text, or a question with its choices and its answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pruning_core.datasets.conversations import Turn, conversation
from pruning_core.errors import DatasetInvalid

MAX_LINE_BYTES = 1 << 24
"""A whole corpus may be one line, a mistake should not be."""
DEEP = 100
_NOT_WORDS = re.compile(r"[\W_]+")
_HELD_OUT_SHARE = 0.25


SHAPES = (
    "`text`; `messages`; `prompt` and `completion`; `instruction`, `input` and `output`; "
    "or `question` and `choices`"
)


@dataclass(frozen=True)
class TextItem:
    """A document, or a conversation.

    Attributes:
        text: As it reads without a chat template.
        turns: What was said by whom; empty for a document.
    """

    text: str
    turns: tuple[Turn, ...] = ()

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
        texts = (str(self.fields.get(name, "")) for name in ("context", "question"))
        return fingerprint(" ".join((*texts, *sorted(self.choices))))


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
    places = ((f"{label}, line {number}", line) for number, line in enumerate(lines, 1))
    return of_one_kind((where, parse(line, where)) for where, line in places if line.strip())


def of_one_kind(items: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, Item]]:
    """Pass items on with where they stand.

    Raises:
        DatasetInvalid: one is of another kind than the first.
    """
    kind: type[Item] | None = None
    for where, entry in items:
        kind = kind or type(entry)
        if not isinstance(entry, kind):
            raise DatasetInvalid(f"{where}: a file holds texts or questions, not both")
        yield where, entry


def parse(line: bytes, where: str) -> Item:
    """Return one line's item.

    Raises:
        DatasetInvalid: not UTF-8, no JSON object, no text, lone surrogates, choices that are no choice, an answer out of range.
    """
    if len(line) > MAX_LINE_BYTES:
        raise DatasetInvalid(f"{where}: longer than {MAX_LINE_BYTES} bytes")
    try:
        content = json.loads(line.decode(), parse_constant=no_constant)
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{where}: not UTF-8 (byte {error.start})") from None
    except (ValueError, RecursionError):
        raise DatasetInvalid(
            f"{where}: not JSON; every line is one whole object, or the file is one array of objects"
        ) from None
    if b"\\u" in line or line.count(b"[") + line.count(b"{") > DEEP:
        check_writable(content, where)
    return item(content, where)


def item(content: Any, where: str) -> Item:
    """Return the item that a mapping describes.

    Raises:
        DatasetInvalid: as `parse`.
    """
    if not isinstance(content, Mapping):
        raise DatasetInvalid(f"{where}: not a JSON object")
    if "choices" in content:
        return _choice(content, where)
    text = content.get("text")
    if isinstance(text, str) and text.strip():
        return TextItem(text)
    dialogue = None if "text" in content else conversation(content, where)
    if dialogue is None:
        raise DatasetInvalid(f"{where}: not an object with {SHAPES}")
    return TextItem(dialogue.text, dialogue.turns)


def no_constant(name: str) -> None:
    """Refuse what Python reads and JSON does not know: NaN and infinity.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is no JSON")


def check_writable(content: Any, where: str) -> None:
    """Refuse what can be read and not be written again, as no tokenizer or digest can.

    Raises:
        DatasetInvalid: half a surrogate pair, or nested too deep.
    """
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DatasetInvalid(
            f"{where}: half a surrogate pair (\\ud800 to \\udfff) is no character"
        ) from None
    except RecursionError:
        raise DatasetInvalid(f"{where}: not JSON that is nested so deep") from None


def _choice(content: Mapping[str, Any], where: str) -> ChoiceItem:
    choices, answer = content["choices"], content.get("answer")
    if not isinstance(choices, list | tuple) or not all(
        isinstance(choice, str) for choice in choices
    ):
        raise DatasetInvalid(f"{where}: `choices` is no list of texts")
    if len(choices) < 2 or not all(choice.strip() for choice in choices):
        raise DatasetInvalid(f"{where}: `choices` needs two texts or more, none of them empty")
    if len({choice.strip() for choice in choices}) < len(choices):
        raise DatasetInvalid(f"{where}: the same choice is there twice")
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise DatasetInvalid(f"{where}: `answer` is no whole number (the right choice, from 0)")
    if not 0 <= answer < len(choices):
        raise DatasetInvalid(f"{where}: `answer` is {answer}, but there are {len(choices)} choices")
    texts = {name: content.get(name) or "" for name in ("question", "context")}
    if not all(isinstance(choice, str) for choice in texts.values()) or not any(texts.values()):
        raise DatasetInvalid(f"{where}: neither a `question` nor a `context`")
    return ChoiceItem({**content, **texts}, tuple(choices), answer)
