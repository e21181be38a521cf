"""Conversations as the tokenizer's chat template writes them."""

from __future__ import annotations

from typing import Any

from pruning_core.datasets.conversations import Turn
from pruning_core.datasets.items import TextItem
from pruning_core.errors import ModelInvalid


def conversation_text(tokenizer: Any, item: TextItem) -> str:
    """Return a conversation, or a text as its user's one turn, as the chat template writes it.

    Raises:
        ModelInvalid: the template, which is a program of the model's maker, fails on it in whatever way.
    """
    text: str = _rendered(tokenizer, item, tokenize=False)
    return text


def conversation_tokens(tokenizer: Any, item: TextItem) -> list[int]:
    """Return the same as token ids.

    Raises:
        ModelInvalid: there is no template, or it fails on the item.
    """
    if not tokenizer.chat_template:
        raise ModelInvalid(
            "the tokenizer has no chat template", suggestions=("leave chat_template off",)
        )
    ids: list[int] = _rendered(tokenizer, item, tokenize=True)
    return ids


def _rendered(tokenizer: Any, item: TextItem, *, tokenize: bool) -> Any:
    messages = [turn._asdict() for turn in item.turns or (Turn("user", item.text),)]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=tokenize, return_dict=False)
    except Exception as error:
        raise ModelInvalid(
            f"the tokenizer's chat template fails on an item: {type(error).__name__}: {error}",
            suggestions=("mend the template", "use data that is plain text"),
        ) from error
