"""A multiple-choice question as token ids: the prompt and continuation of every choice, split as lm-evaluation-harness does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pruning_core.datasets.readings import Question
from pruning_core.errors import DatasetInvalid
from pruning_core.tokenizers.load import beginning, encoded


@dataclass(frozen=True)
class Encoded:
    """A question as token ids.

    Attributes:
        sequences: Prompt and continuation of every choice.
        starts: Where each continuation begins, at least 1.
        answer: Index of the right choice.
        lengths: Characters by which `acc_norm` divides.
    """

    sequences: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    answer: int
    lengths: tuple[int, ...]

    @property
    def prefix(self) -> int:
        """Tokens that all choices share; the last token of a sequence is predicted, never read."""
        columns = zip(*(sequence[:-1] for sequence in self.sequences), strict=False)
        return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

    @property
    def size(self) -> int:
        """Tokens that the model reads."""
        prefix = self.prefix
        return prefix + sum(len(sequence) - 1 - prefix for sequence in self.sequences)

    @property
    def longest(self) -> int:
        """Tokens of the longest path."""
        return max(map(len, self.sequences)) - 1


def encode(tokenizer: Any, questions: Iterable[Question], max_tokens: int) -> list[Encoded]:
    """Return questions as token ids, split as lm-evaluation-harness splits them.

    Spaces at the end of a prompt belong to the continuation. The continuation is what the tokens of the whole have beyond
    as many tokens as the prompt has by itself. A tokenizer that begins texts with a token of its own does so here.

    Args:
        tokenizer: Of the model.
        questions: One prompt and continuation per choice.
        max_tokens: Most that the model reads.

    Raises:
        DatasetInvalid: a question is longer; the message names file and line.
    """
    begin = beginning(tokenizer)
    head = [] if begin is None else [begin]
    return [_encoded(tokenizer, question, head, max_tokens) for question in questions]


def _encoded(tokenizer: Any, question: Question, begin: list[int], max_tokens: int) -> Encoded:
    sequences, starts = [], []
    for prompt, continuation in zip(question.prompts, question.continuations, strict=True):
        context = prompt.rstrip()
        whole = _ids(tokenizer, prompt + continuation)
        first = _ids(tokenizer, context) if context else []
        head = begin or ([] if first else [_separator(tokenizer, question)])
        sequence = (*head, *first, *whole[len(first) :])
        if len(sequence) == len(head) + len(first):
            raise DatasetInvalid(f"{question.where}: a choice adds no token to its prompt")
        if len(sequence) - 1 > max_tokens:
            raise DatasetInvalid(
                f"{question.where}: {len(sequence) - 1} tokens; the model reads at most {max_tokens}",
                suggestions=("leave this task or item out", "choose a model with a longer window"),
            )
        sequences.append(sequence)
        starts.append(len(head) + len(first))
    return Encoded(tuple(sequences), tuple(starts), question.answer, _lengths(question))


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = encoded(tokenizer, text, add_special_tokens=False)["input_ids"]
    return ids


def _separator(tokenizer: Any, question: Question) -> int:
    """Return the token that stands in for an empty prompt."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise DatasetInvalid(f"{question.where}: the prompt is empty and the tokenizer begins no text")


def _lengths(question: Question) -> tuple[int, ...]:
    """Return the characters of each choice; where the choice is in the prompt, of the prompt."""
    apart = len(set(question.prompts)) == 1
    texts = [text.removeprefix(" ") for text in question.continuations]
    return tuple(map(len, texts if apart else question.prompts))
