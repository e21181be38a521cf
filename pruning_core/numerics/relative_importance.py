"""A weight's size beside those of its row and its column, and the activation that it meets: the parts of RIA and CRePE."""

from __future__ import annotations

import torch

from pruning_core.numerics.input_statistics import Stats


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
