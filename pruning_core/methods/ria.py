"""RIA: Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play", ICLR 2024 (OpenReview Tr0lPx9woF).

A = |W|,  R_i = sum over inputs of A_ij,  C_j = sum over outputs of A_ij
score = (A / R + A / C) * sqrt(q)^a,  q_j = mean over tokens of x_j squared,  a = 0.5

One threshold per matrix, as the authors' default. A row or column of zeros scores 0 (0/0 is read as 0).
Departures from the authors' code: float32 where theirs rounds both ratios to 16 bits; counts are exact.
"""

from __future__ import annotations

import torch

from pruning_core.engine.stats import Stats
from pruning_core.spec.methods import RIA

NEEDS: tuple[str, ...] = ("column_mean_square",)


def score(weight: torch.Tensor, stats: Stats, params: RIA) -> torch.Tensor:
    """Return the importance of every weight, [out, in]."""
    row, column = relative_importance(weight)
    return row.add_(column).mul_(activation(stats, params.exponent))


def relative_importance(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A / R and A / C, each [out, in]."""
    magnitude = weight.abs()
    rows, columns = magnitude.sum(dim=1, keepdim=True), magnitude.sum(dim=0, keepdim=True)
    return magnitude / _nonzero(rows), magnitude / _nonzero(columns)


def activation(stats: Stats, exponent: float) -> torch.Tensor:
    """Return sqrt(q)^exponent, [in]."""
    return stats.root_mean_square.pow(exponent)


def _nonzero(sums: torch.Tensor) -> torch.Tensor:
    """A sum is 0 only where every term is; any divisor then gives 0."""
    return sums.masked_fill(sums == 0, 1)
