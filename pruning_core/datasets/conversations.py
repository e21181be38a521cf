"""Rows of fine-tuning data as conversations: `messages`, `conversations`, `prompt` with `completion`, `instruction` with `output`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pruning_core.errors import DatasetInvalid

ROLES = ("system", "developer", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "gpt": "assistant"}
PARAGRAPH = "\n\n"


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


class Conversation(NamedTuple):
    """A row of fine-tuning data.

    Attributes:
        turns: What was said, in order.
        text: The same as plain text, without roles.
    """

    turns: tuple[Turn, ...]
    text: str


def conversation(row: Mapping[str, Any], where: str) -> Conversation | None:
    """Return the conversation that a row holds; None where its columns are of no known kind.

    Args:
        row: `messages` (`role`, `content`), `conversations` (the same, or `from`, `value`), `prompt` and `completion`
            (texts, or lists of messages), or `instruction`, `output` and perhaps `input`.
        where: The row, for messages.

    Raises:
        DatasetInvalid: columns of a known kind hold something else.
    """
    for name in ("messages", "conversations"):
        if name in row:
            turns = _turns(row[name], f"{where}: `{name}`")
            return Conversation(turns, PARAGRAPH.join(turn.content for turn in turns))
    if {"prompt", "completion"} <= row.keys():
        return _completed(row["prompt"], row["completion"], where)
    if {"instruction", "output"} <= row.keys():
        return _instructed(row, where)
    return None


def _completed(prompt: Any, completion: Any, where: str) -> Conversation:
    """Texts are one text as they stand: spaces between them belong to one of the two."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return _pair(prompt, completion, "", where)
    turns = _turns(prompt, f"{where}: `prompt`") + _turns(completion, f"{where}: `completion`")
    return Conversation(turns, PARAGRAPH.join(turn.content for turn in turns))


def _instructed(row: Mapping[str, Any], where: str) -> Conversation:
    parts = [row.get(name) or "" for name in ("instruction", "input", "output")]
    if not all(isinstance(part, str) for part in parts):
        raise DatasetInvalid(f"{where}: `instruction`, `input` and `output` are texts")
    *asked, answer = parts
    return _pair(PARAGRAPH.join(filter(str.strip, asked)), answer, PARAGRAPH, where)


def _pair(asked: str, answer: str, between: str, where: str) -> Conversation:
    if not asked.strip() or not answer.strip():
        raise DatasetInvalid(f"{where}: what is asked or what is answered is empty")
    turns = (Turn("user", asked), Turn("assistant", answer))
    return Conversation(turns, asked + between + answer)


def _turns(messages: Any, where: str) -> tuple[Turn, ...]:
    if not isinstance(messages, list | tuple) or not messages:
        raise DatasetInvalid(f"{where} is no list of messages")
    turns = tuple(_turn(message, f"{where}, message {n}") for n, message in enumerate(messages, 1))
    if not any(turn.content.strip() for turn in turns):
        raise DatasetInvalid(f"{where}: every message is empty")
    return turns


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise DatasetInvalid(f"{where}: no object with `role` and `content`")
    if message.get("tool_calls") or message.get("function_call"):
        raise DatasetInvalid(f"{where}: calls of tools are not read; write them into `content`")
    role = message.get("role", message.get("from"))
    role = _SHAREGPT.get(str(role), role)
    if role not in ROLES:
        raise DatasetInvalid(f"{where}: `role` is none of {', '.join(ROLES)}")
    return Turn(role, _content(message.get("content", message.get("value")), where))


def _content(content: Any, where: str) -> str:
    """Return a message's text, which may stand in parts of the type `text`."""
    parts = content if isinstance(content, list | tuple) else [content]
    texts = [part.get("text") if _is_text_part(part) else part for part in parts]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise DatasetInvalid(f"{where}: `content` is no text")
    return "".join(texts)


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text"
