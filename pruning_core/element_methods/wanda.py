"""Wanda: Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695.

score = |W| * sqrt(q),  q_j = mean over tokens of x_j squared

The paper's norm of X_j differs from sqrt(q_j) by a constant factor, which ranks nothing differently.
Departures from the authors' code: n:m takes any n and m, and their search of a ratio per row is not offered.
"""

from __future__ import annotations

import torch

from pruning_core.numerics.importance import active_magnitude
from pruning_core.numerics.input_statistics import Stats
from pruning_core.spec.element_methods import Wanda

NEEDS: tuple[str, ...] = ("column_mean_square",)


def score(weight: torch.Tensor, stats: Stats, params: Wanda) -> torch.Tensor:
    """Return the importance of every weight, [out, in]."""
    return active_magnitude(weight, stats)
