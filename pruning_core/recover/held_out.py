"""Which of recovery's windows validate, and how many of them its budget bears."""

from __future__ import annotations

import hashlib

import torch

from pruning_core.errors import DatasetTooSmall
from pruning_core.recover.schedule import Schedule
from pruning_core.spec.recovery import Recovery

LEAST_TOKENS = 4096
"""Validation text that no budget cuts: with less of it, chance would decide what is kept."""


def least(windows: torch.Tensor) -> int:
    """Return how many windows, int64 [windows, seq], validate whatever the budget."""
    return -(-LEAST_TOKENS // windows.shape[1])


def most(windows: torch.Tensor, params: Recovery) -> int:
    """Return how many of all windows, int64 [windows, seq], may validate: a share of those that the budget trains on."""
    budget = Schedule.of(params, len(windows)).window_budget
    trained = len(windows) if budget is None else min(len(windows), budget)
    return max(least(windows), round(params.validation * trained))


def split(windows: torch.Tensor, params: Recovery) -> tuple[torch.Tensor, torch.Tensor]:
    """Return training and validation windows: disjoint, each window once, both in the given order.

    Which validate depends on the seed and the windows' ids; at least one does and one does not, and no more than the
    budget bears.

    Args:
        windows: int64 [windows, seq].
        params: The share that validates, the budget, the seed.

    Raises:
        DatasetTooSmall: there are no two distinct windows.
    """
    rows = windows.contiguous().numpy()
    hashes = [hashlib.sha256(f"{params.seed}:".encode() + row.tobytes()).digest() for row in rows]
    first = {digest: index for index, digest in reversed(list(enumerate(hashes)))}
    if len(first) < 2:
        raise DatasetTooSmall(
            "recovery needs at least two distinct windows: one to train on, one to validate",
            suggestions=("use a shorter recovery.seq_len", "choose more tasks"),
        )
    asked = min(max(1, round(params.validation * len(first))), len(first) - 1)
    chosen = set(sorted(first)[: min(asked, most(windows, params))])
    training = sorted(index for digest, index in first.items() if digest not in chosen)
    return windows[training], windows[sorted(first[digest] for digest in chosen)]
