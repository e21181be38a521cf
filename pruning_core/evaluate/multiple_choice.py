"""Multiple choice by log-likelihood: the likeliest continuation is the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from pruning_core.errors import NumericalFailure
from pruning_core.evaluate.choice_rows import ChoiceRow, passes
from pruning_core.evaluate.perplexity import LOGITS_PER_CHUNK
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.prune.walk import forward
from pruning_core.text.question_tokens import Encoded


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
    sums: list[list[float]] = [[0.0] * len(question.sequences) for question in questions]
    done, total = 0.0, sum(question.size for question in questions)
    for rows in passes(model, questions):
        share = sum(row.batch.tokens.numel() for row in rows) / total
        states = Activations(model, [row.batch for row in rows], alive=alive)

        def report_share(index: int, done: float = done, share: float = share) -> None:
            block_done(min(1.0, done + share * (index + 1) / len(model.blocks)))

        forward(model, states, report_share, prepare)
        done += share
        for row, hidden in zip(rows, states.hidden, strict=True):
            for target, value in zip(row.targets, _sums(model, row, hidden), strict=True):
                sums[target.question][target.choice] = value
            alive()
    return sums


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


class _Prediction(NamedTuple):
    """A token whose log-likelihood counts for a target, by the target's number."""

    target: int
    token: int


def _sums(model: StreamedModel, row: ChoiceRow, hidden: torch.Tensor) -> list[float]:
    """Return each target's log-likelihood; logits are computed where something is predicted, and nowhere else."""
    by_place = _predictions(row)
    sums = torch.zeros(len(row.targets), dtype=torch.float64)
    for places in _chunks(sorted(by_place), LOGITS_PER_CHUNK // int(model.config.vocab_size)):
        logits = model.logits(row.batch.tokens, hidden, torch.tensor(places))[0].float()
        logits = logits.log_softmax(dim=-1)
        asked = [(at, made) for at, place in enumerate(places) for made in by_place[place]]
        rows = torch.tensor([at for at, _ in asked])
        tokens = torch.tensor([made.token for _, made in asked])
        targets = torch.tensor([made.target for _, made in asked])
        sums.index_add_(0, targets, logits[rows, tokens].double().cpu())
    if not bool(sums.isfinite().all()):
        raise NumericalFailure("a choice's log-likelihood is NaN or infinite")
    return sums.tolist()


def _predictions(row: ChoiceRow) -> dict[int, list[_Prediction]]:
    """Return what is predicted at each place of a row; choices may share a place."""
    by_place: dict[int, list[_Prediction]] = {}
    for number, target in enumerate(row.targets):
        for place, token in zip(target.places, target.ids, strict=True):
            by_place.setdefault(place, []).append(_Prediction(number, token))
    return by_place


def _chunks(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    step = max(1, size)
    return (places[first : first + step] for first in range(0, len(places), step))
