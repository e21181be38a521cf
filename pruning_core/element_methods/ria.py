"""RIA: Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play", ICLR 2024 (OpenReview Tr0lPx9woF).

A = |W|,  R_i = sum over inputs of A_ij,  C_j = sum over outputs of A_ij
score = (A / R + A / C) * sqrt(q)^a,  q_j = mean over tokens of x_j squared,  a = 0.5

One threshold per matrix, as the authors' default. A row or column of zeros scores 0 (0/0 is read as 0).
Departures from the authors' code: float32 where theirs rounds both ratios to 16 bits; counts are exact.
"""

from __future__ import annotations

import torch

from pruning_core.numerics.importance import active_relative_importance
from pruning_core.numerics.input_statistics import Stats
from pruning_core.spec.element_methods import RIA

NEEDS: tuple[str, ...] = ("column_mean_square",)


def score(weight: torch.Tensor, stats: Stats, params: RIA) -> torch.Tensor:
    """Return the importance of every weight, [out, in]."""
    return active_relative_importance(weight, stats, params.exponent)
