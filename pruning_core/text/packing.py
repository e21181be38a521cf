"""Texts joined and cut into windows of one length."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from pruning_core.errors import DatasetTooSmall
from pruning_core.text.task_reader import SEPARATOR, TaskReader
from pruning_core.tokenizers.load import encoded


@dataclass(frozen=True)
class Packed:
    """Windows of one text, int64 [windows, seq], and alike the document of each token where it is known."""

    tokens: torch.Tensor
    documents: torch.Tensor | None


def packed(
    reader: TaskReader, parts: Sequence[str], length: int, bos: bool | None, what: str
) -> Packed:
    """Return all full windows of the joined text.

    Args:
        reader: The model's.
        parts: Documents.
        length: Tokens per window.
        bos: Whether windows begin with the tokenizer's first token; None for what suits the family.
        what: The text, at the head of messages.

    Raises:
        DatasetTooSmall: the text does not fill one window.
    """
    ids, documents = _joined_tokens(reader, parts)
    begin = reader.window_beginning(bos)
    if begin is not None and ids[:1] == [begin]:
        ids, documents = ids[1:], documents[1:]
    content = length - (begin is not None)
    count = len(ids) // content
    if not count:
        raise DatasetTooSmall(
            f"{what} has {len(ids)} tokens, less than one window of {length}.",
            suggestions=("use a shorter seq_len", "choose another task"),
        )
    tokens = torch.tensor(ids[: count * content]).view(count, content)
    owners = torch.tensor(documents[: count * content]).view(count, -1) if documents else None
    if begin is not None:
        tokens = torch.cat([torch.full((count, 1), begin), tokens], dim=1)
        owners = torch.cat([owners[:, :1], owners], dim=1) if owners is not None else None
    return Packed(tokens, owners)


def _joined_tokens(reader: TaskReader, parts: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the tokens of the joined documents, and where there are several, the document of each token."""
    text = SEPARATOR.join(parts)
    if len(parts) == 1 or not reader.tokenizer.is_fast:
        return reader.encode(text), []
    made = encoded(reader.tokenizer, text, return_offsets_mapping=True)
    ends = list(accumulate(len(part) + len(SEPARATOR) for part in parts))
    owners = [bisect_right(ends, first) for first, _ in made["offset_mapping"]]
    return reader.known(made["input_ids"]), owners
