"""Windows and questions that models are measured by, from the evaluation splits of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from pruning_core.datasets.readings import questions
from pruning_core.spec.evaluation import Evaluation
from pruning_core.text.packing import packed
from pruning_core.text.question_tokens import Encoded, encode
from pruning_core.text.task_reader import BYTES_PER_TOKEN, TaskReader
from pruning_core.text.windows import Windows
from pruning_core.tokenizers.load import beginning, encoded

T = TypeVar("T")


def evaluation_windows(reader: TaskReader, task: str, spec: Evaluation) -> Windows:
    """Return the first windows of a text task's evaluation split.

    Raises:
        DatasetTooSmall: it does not fill one window.
    """
    length = reader.window_length(spec.seq_len)
    limit = spec.windows and spec.windows * length * BYTES_PER_TOKEN
    parts = reader.texts(reader.data_used.split(task, "eval", limit_bytes=limit))
    cut = packed(reader, parts, length, spec.bos, f"The eval split of task {task!r}")
    tokens = cut.tokens[: spec.windows]
    documents = cut.documents[: spec.windows] if cut.documents is not None else None
    if documents is not None and len(set(documents.flatten().tolist())) == 1:
        documents = None
    size = sum(len(reader.tokenizer.decode(row[1:]).encode()) for row in tokens)
    return Windows((tokens,), {task: len(tokens)}, documents, text_bytes=size)


def same_texts(reader: TaskReader, windows: Windows, before: Any) -> Windows:
    """Return the same texts as this tokenizer reads them, each in one row, or in several where the model's limit asks.

    Every token is predicted as often as it would be in one row. The first that a further row predicts is conditioned
    on less: on the token that begins windows, or where none does on the token before it.

    Args:
        reader: Of the model that reads them now.
        windows: As another tokenizer reads them.
        before: That tokenizer.
    """
    begin, begin_before = beginning(reader.tokenizer), beginning(before)
    rows: list[torch.Tensor] = []
    owners: list[int] = []
    for owner, row in enumerate(windows.groups[0]):
        leading = row[0] == begin_before
        text = before.decode(row[1:] if leading else row)
        ids = reader.known(encoded(reader.tokenizer, text, add_special_tokens=False)["input_ids"])
        parts = _parts(ids, begin if leading else None, reader.max_positions)
        rows += [torch.tensor([part]) for part in parts]
        owners += [owner] * len(parts)
    return Windows(tuple(rows), windows.counts, owners=tuple(owners))


def evaluation_questions(reader: TaskReader, task: str, spec: Evaluation) -> list[Encoded]:
    """Return items of a multiple-choice task's evaluation split, spread evenly over all that there are.

    Raises:
        DatasetInvalid: an item is longer than the model reads.
    """
    asked = spread(questions(reader.data_used.split(task, "eval")), spec.items)
    return encode(reader.tokenizer, asked, reader.max_positions)


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """Return `count` items at equal distances, in their order: files are often sorted by subject."""
    wanted = len(items) if count is None else min(count, len(items))
    return [items[index * len(items) // wanted] for index in range(wanted)]


def _parts(ids: list[int], begin: int | None, limit: int) -> list[list[int]]:
    """Return rows of at most `limit` tokens that together predict what one row would: see `same_texts`."""
    whole = ids if begin is None else [begin, *ids]
    starts = range(0, max(1, len(whole) - 1), limit - 1)
    firsts = [whole[start] if begin is None else begin for start in starts]
    return [
        [first, *whole[start + 1 : start + limit]]
        for first, start in zip(firsts, starts, strict=True)
    ]
