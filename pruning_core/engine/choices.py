"""Multiple choice by log-likelihood: a question's choices share one pass over what they have in common.

A question is a tree of tokens: the prefix that all its choices begin with, and a branch for each. Several trees lie in
one row; every token sees its own branch and prefix alone and has the position that it would have by itself, so that no
token is computed twice and none is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import nn

from pruning_core.engine import device as devices
from pruning_core.engine.activations import Activations, Batch
from pruning_core.engine.evaluate import LOGITS_PER_CHUNK, PASS_TOKENS
from pruning_core.engine.model import StreamedModel
from pruning_core.engine.tokenizing import beginning, encoded
from pruning_core.engine.walk import forward
from pruning_core.errors import DatasetInvalid, NumericalFailure
from pruning_core.intake.tasks import Question

ROW_TOKENS = 2048
"""Most of a row: attention to what a token may not see is wasted, and its mask grows with the square."""


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


def score(
    model: StreamedModel,
    questions: Sequence[Encoded],
    block_done: Callable[[float], None] = lambda _share: None,
    *,
    alive: Callable[[], None] = lambda: None,
    prepare: Callable[[int, nn.Module], None] = lambda _index, _block: None,
) -> list[list[float]]:
    """Return the summed log-likelihood of every choice's continuation.

    Args:
        model: The model.
        questions: From `encode`.
        block_done: Called with the share that is done, after each block.
        alive: Called often in between.
        prepare: Called with each block before it is used, and free to change its weights for this once.

    Raises:
        NumericalFailure: a log-likelihood is not finite.
    """
    found: list[list[float]] = [[0.0] * len(question.sequences) for question in questions]
    done, total = 0.0, sum(question.size for question in questions)
    for rows in _passes(model, questions):
        share = sum(row.batch.tokens.numel() for row in rows) / total
        states = Activations(model, [row.batch for row in rows], alive=alive)

        def told(index: int, done: float = done, share: float = share) -> None:
            block_done(min(1.0, done + share * (index + 1) / len(model.blocks)))

        forward(model, states, told, prepare)
        done += share
        for row, hidden in zip(rows, states.hidden, strict=True):
            for target, value in zip(row.targets, _sums(model, row, hidden), strict=True):
                found[target.question][target.choice] = value
            alive()
    return found


def accuracy(
    questions: Sequence[Encoded], scores: Sequence[Sequence[float]], *, normalised: bool
) -> list[bool]:
    """Return which questions are answered rightly: the first of the likeliest choices is the answer."""
    answered = []
    for question, values in zip(questions, scores, strict=True):
        lengths = question.lengths if normalised else (1,) * len(values)
        weighed = [value / length for value, length in zip(values, lengths, strict=True)]
        answered.append(weighed.index(max(weighed)) == question.answer)
    return answered


@dataclass(frozen=True)
class _Target:
    """One choice in a row: which places predict it, and what they should."""

    question: int
    choice: int
    places: list[int]
    ids: list[int]


@dataclass(frozen=True)
class _Row:
    """One row of trees."""

    batch: Batch
    targets: list[_Target]


def _passes(model: StreamedModel, questions: Sequence[Encoded]) -> Iterator[list[_Row]]:
    """Yield rows, as many at a time as may be in memory."""
    capacity = min(ROW_TOKENS, devices.batch_tokens(model.device))
    rows: list[_Row] = []
    size = 0
    for members in _filled(questions, capacity, _window(model.config)):
        row = _row(questions, members)
        size += row.batch.tokens.numel()
        rows.append(row)
        if size >= PASS_TOKENS:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _window(config: Any) -> int | None:
    """Return the least number of tokens that a layer looks back on; None where all see everything."""
    found = getattr(config, "sliding_window", None)
    return int(found) if found else None


Member = tuple[int, tuple[int, ...]]
"""A question, and those of its choices that go together."""


def _filled(
    questions: Sequence[Encoded], capacity: int, window: int | None
) -> Iterator[list[Member]]:
    """Yield what goes into each row, the longest first.

    Where a path goes beyond a sliding window, or a mask would be too large, each choice goes alone as any text does.
    """
    order = sorted(range(len(questions)), key=lambda index: -questions[index].size)
    row: list[Member] = []
    free = 0
    for index in order:
        question = questions[index]
        choices = tuple(range(len(question.sequences)))
        if question.size > ROW_TOKENS or (window is not None and question.longest > window):
            for choice in choices:
                yield [(index, (choice,))]
            continue
        if row and question.size > free:
            yield row
            row = []
        if not row:
            free = max(capacity, question.size)
        row.append((index, choices))
        free -= question.size
    if row:
        yield row


def _row(questions: Sequence[Encoded], members: Sequence[Member]) -> _Row:
    if len(members) == 1 and len(members[0][1]) == 1:
        return _single(questions, *members[0])
    tokens: list[int] = []
    positions: list[int] = []
    targets: list[_Target] = []
    spans: list[tuple[int, int, int, int]] = []
    for index, choices in members:
        question = questions[index]
        base, prefix = len(tokens), question.prefix
        tokens += question.sequences[0][:prefix]
        positions += range(prefix)
        for choice in choices:
            sequence, start = question.sequences[choice], question.starts[choice]
            branch, read = len(tokens), len(sequence) - 1
            tokens += sequence[prefix:read]
            positions += range(prefix, read)
            spans.append((base, base + prefix, branch, len(tokens)))
            shift = branch - prefix
            places = [at + (base if at < prefix else shift) for at in range(start - 1, read)]
            targets.append(_Target(index, choice, places, list(sequence[start:])))
    batch = Batch(
        torch.tensor([tokens]), torch.tensor([positions]), _visible(len(tokens), spans)[None]
    )
    return _Row(batch, targets)


def _single(questions: Sequence[Encoded], index: int, choices: tuple[int, ...]) -> _Row:
    (choice,) = choices
    sequence, start = questions[index].sequences[choice], questions[index].starts[choice]
    places = list(range(start - 1, len(sequence) - 1))
    target = _Target(index, choice, places, list(sequence[start:]))
    return _Row(Batch(torch.tensor([sequence[:-1]])), [target])


def _visible(size: int, spans: Iterable[tuple[int, int, int, int]]) -> torch.Tensor:
    """Return who sees whom, bool [size, size]: prefixes and branches causally, a branch its whole prefix."""
    visible = torch.zeros(size, size, dtype=torch.bool)
    for base, end, first, last in spans:
        visible[base:end, base:end] = True
        visible[first:last, base:end] = True
        visible[first:last, first:last] = True
    return visible.tril_()


def _sums(model: StreamedModel, row: _Row, hidden: torch.Tensor) -> list[float]:
    """Return each target's log-likelihood; logits are computed where something is predicted, and nowhere else."""
    places = sorted({place for target in row.targets for place in target.places})
    chunk = max(1, LOGITS_PER_CHUNK // int(model.config.vocab_size))
    wanted: dict[int, list[tuple[int, int]]] = {}
    for number, target in enumerate(row.targets):
        for place, token in zip(target.places, target.ids, strict=True):
            wanted.setdefault(place, []).append((number, token))
    sums = torch.zeros(len(row.targets), dtype=torch.float64)
    for some in (places[at : at + chunk] for at in range(0, len(places), chunk)):
        logits = model.logits(row.batch.tokens, hidden, torch.tensor(some))[0].float()
        logits = logits.log_softmax(dim=-1)
        rows, numbers, tokens = zip(
            *((at, *pair) for at, place in enumerate(some) for pair in wanted[place]), strict=True
        )
        found = logits[torch.tensor(rows), torch.tensor(tokens)].double().cpu()
        sums.index_add_(0, torch.tensor(numbers), found)
    if not bool(sums.isfinite().all()):
        raise NumericalFailure("a choice's log-likelihood is NaN or infinite")
    return sums.tolist()
