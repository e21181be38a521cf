"""One model's losses and log-likelihoods over an evaluation set."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pruning_core.evaluate.evaluation_set import EvaluationSet
from pruning_core.evaluate.multiple_choice import score
from pruning_core.evaluate.perplexity import token_losses
from pruning_core.model.streamed import StreamedModel
from pruning_core.system.progress import Tracker


@dataclass(frozen=True)
class Measured:
    """One model's losses per token and log-likelihoods per choice, per task."""

    losses: Mapping[str, list[torch.Tensor]]
    scores: Mapping[str, list[list[float]]]


def measure(model: StreamedModel, by: EvaluationSet, tracker: Tracker, key: str) -> Measured:
    """Measure one model; `key` names its share of the progress."""
    tracker.begin("evaluating", by.tokens, unit="token", key=key)
    read = 0
    losses, scores = {}, {}
    for task, windows in by.texts.items():
        part_done = functools.partial(_part_done, tracker, read, windows.tokens)
        losses[task] = token_losses(model, windows.groups, part_done, alive=tracker.alive)
        read += windows.tokens
    for task, asked in by.questions.items():
        size = sum(question.size for question in asked)
        part_done = functools.partial(_part_done, tracker, read, size)
        scores[task] = score(model, asked, part_done, alive=tracker.alive)
        read += size
    return Measured(losses, scores)


def _part_done(tracker: Tracker, before: int, size: int, share: float) -> None:
    """Note that a share of one task's tokens have gone through all blocks, or all of them through a share of the blocks."""
    tracker.step(before + int(share * size + 1e-6))
