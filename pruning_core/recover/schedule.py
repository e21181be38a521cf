"""How far a training goes, which windows each of its steps takes, and how large the step is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pruning_core.spec.recovery import Recovery


@dataclass(frozen=True)
class Schedule:
    """How far a training goes.

    Attributes:
        per_epoch: Optimiser steps that see every window once.
        most: Steps at most; None where time alone bounds them.
        every: Steps between two validations.
        window_budget: Windows that the steps see at most; None as above.
    """

    per_epoch: int
    most: int | None
    every: int
    window_budget: int | None

    @classmethod
    def of(cls, params: Recovery, windows: int) -> Schedule:
        """Return the schedule of a training on so many windows."""
        rows = params.batch * params.accumulation
        per_epoch = -(-windows // rows)
        most = params.most_steps(per_epoch)
        every = max(1, round(params.evaluate_every * per_epoch))
        return cls(per_epoch, most, every, None if most is None else most * rows)

    @property
    def validations(self) -> int:
        """How often a training that spends its steps validates, before the first of them included."""
        return 1 + -(-(self.per_epoch if self.most is None else self.most) // self.every)


def step_seed(seed: int, number: int) -> int:
    """Return a seed of its own for a step or an epoch."""
    return seed * 1_000_003 + number


def chosen(count: int, step: int, size: int, seed: int) -> torch.Tensor:
    """Return which of `count` windows a step takes, int64: each once per epoch, in an order of the seed and the epoch."""
    epoch, position = divmod(step, -(-count // size))
    order = torch.Generator().manual_seed(step_seed(seed, epoch))
    return torch.randperm(count, generator=order)[position * size : (position + 1) * size]


def rate_share(share: float, warmup: float) -> float:
    """Return the part of the largest rate that a step takes which lies at `share` of the training."""
    if share < warmup:
        return share / warmup
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
