"""Multiple choice by log-likelihood: a question's choices share one pass over what they have in common.

A question is a tree of tokens: the prefix that all its choices begin with, and a branch for each. Several trees lie in
one row; every token sees its own branch and prefix alone and has the position that it would have by itself, so that no
token is computed twice and none is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning_core.errors import NumericalFailure
from pruning_core.evaluate.perplexity import LOGITS_PER_CHUNK, PASS_TOKENS
from pruning_core.model.hidden_states import Activations, Batch
from pruning_core.model.streamed import StreamedModel
from pruning_core.prune.walk import forward
from pruning_core.system import device as devices
from pruning_core.text.question_tokens import Encoded

ROW_TOKENS = 2048
"""Most of a row: attention to what a token may not see is wasted, and its mask grows with the square."""


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
        questions: From `question_tokens.encode`.
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

        def report_share(index: int, done: float = done, share: float = share) -> None:
            block_done(min(1.0, done + share * (index + 1) / len(model.blocks)))

        forward(model, states, report_share, prepare)
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
