"""Questions as rows of tokens: a question's choices share what they have in common.

A question is a tree of tokens: the prefix that all its choices begin with, and a branch for each. Several trees lie in
one row; every token sees its own branch and prefix alone and has the position that it would have by itself, so that no
token is computed twice and none is padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from pruning_core.evaluate.perplexity import PASS_TOKENS
from pruning_core.model.hidden_states import Batch
from pruning_core.model.streamed import StreamedModel
from pruning_core.system import device as devices
from pruning_core.text.question_tokens import Encoded

ROW_TOKENS = 2048
"""Most of a row: attention to what a token may not see is wasted, and its mask grows with the square."""


@dataclass(frozen=True)
class Target:
    """One choice in a row.

    Attributes:
        question: Its number.
        choice: Its number among the question's.
        places: Where in the row the tokens of its continuation are predicted.
        ids: Those tokens.
    """

    question: int
    choice: int
    places: list[int]
    ids: list[int]


@dataclass(frozen=True)
class ChoiceRow:
    """One row of trees."""

    batch: Batch
    targets: list[Target]


def passes(model: StreamedModel, questions: Sequence[Encoded]) -> Iterator[list[ChoiceRow]]:
    """Yield rows, as many at a time as may be in memory."""
    capacity = min(ROW_TOKENS, devices.batch_tokens(model.device))
    rows: list[ChoiceRow] = []
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
    window = getattr(config, "sliding_window", None)
    return int(window) if window else None


class _Member(NamedTuple):
    """A question by its number, and those of its choices that go together."""

    question: int
    choices: tuple[int, ...]


def _filled(
    questions: Sequence[Encoded], capacity: int, window: int | None
) -> Iterator[list[_Member]]:
    """Yield what goes into each row, the longest first.

    Where a path goes beyond a sliding window, or a mask would be too large, each choice goes alone as any text does.
    """
    order = sorted(range(len(questions)), key=lambda index: -questions[index].size)
    row: list[_Member] = []
    free = 0
    for index in order:
        question = questions[index]
        choices = tuple(range(len(question.sequences)))
        if question.size > ROW_TOKENS or (window is not None and question.longest > window):
            for choice in choices:
                yield [_Member(index, (choice,))]
            continue
        if row and question.size > free:
            yield row
            row = []
        if not row:
            free = max(capacity, question.size)
        row.append(_Member(index, choices))
        free -= question.size
    if row:
        yield row


def _row(questions: Sequence[Encoded], members: Sequence[_Member]) -> ChoiceRow:
    if len(members) == 1 and len(members[0].choices) == 1:
        return _single(questions[members[0].question], members[0])
    trees = _Trees()
    for member in members:
        trees.add(questions[member.question], member)
    return ChoiceRow(trees.batch(), trees.targets)


def _single(question: Encoded, member: _Member) -> ChoiceRow:
    """Return the one choice of a member as any text is read."""
    (choice,) = member.choices
    sequence, start = question.sequences[choice], question.starts[choice]
    places = list(range(start - 1, len(sequence) - 1))
    target = Target(member.question, choice, places, list(sequence[start:]))
    return ChoiceRow(Batch(torch.tensor([sequence[:-1]])), [target])


@dataclass(frozen=True)
class _Branch:
    """Where a choice's tokens lie in its row: those that it shares with others, and its own."""

    prefix: range
    own: range

    def place(self, position: int) -> int:
        """Return where the token lies that is at this position of the choice's sequence."""
        shared = len(self.prefix)
        return self.prefix[position] if position < shared else self.own[position - shared]


@dataclass
class _Trees:
    """A row in the making."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[_Branch] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def add(self, question: Encoded, member: _Member) -> None:
        """Append a question's prefix, and a branch for each of its choices."""
        shared = question.prefix
        prefix = self._append(question.sequences[0][:shared], first=0)
        for choice in member.choices:
            sequence, start = question.sequences[choice], question.starts[choice]
            branch = _Branch(prefix, self._append(sequence[shared:-1], first=shared))
            self.branches.append(branch)
            places = [branch.place(position) for position in range(start - 1, len(sequence) - 1)]
            self.targets.append(Target(member.question, choice, places, list(sequence[start:])))

    def batch(self) -> Batch:
        """Return the row as a batch of one."""
        visible = _visible(len(self.tokens), self.branches)
        return Batch(torch.tensor([self.tokens]), torch.tensor([self.positions]), visible[None])

    def _append(self, tokens: Sequence[int], *, first: int) -> range:
        """Append tokens whose positions begin at `first`; return where they lie."""
        begin = len(self.tokens)
        self.tokens += tokens
        self.positions += range(first, first + len(tokens))
        return range(begin, len(self.tokens))


def _visible(size: int, branches: Iterable[_Branch]) -> torch.Tensor:
    """Return who sees whom, bool [size, size]: prefixes and branches causally, a branch its whole prefix."""
    visible = torch.zeros(size, size, dtype=torch.bool)
    for branch in branches:
        prefix = slice(branch.prefix.start, branch.prefix.stop)
        own = slice(branch.own.start, branch.own.stop)
        visible[prefix, prefix] = True
        visible[own, prefix] = True
        visible[own, own] = True
    return visible.tril_()
