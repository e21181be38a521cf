"""What a weight's size says beside the activation that it meets, and beside the sizes of its row and its column."""

from __future__ import annotations

import torch

from pruning_core.numerics.input_statistics import Stats


def active_magnitude(weight: torch.Tensor, stats: Stats) -> torch.Tensor:
    """Return A sqrt(q), [out, in]: Wanda's score; A = |W|, q the mean square of the input."""
    return weight.abs() * stats.root_mean_square


def active_relative_importance(weight: torch.Tensor, stats: Stats, exponent: float) -> torch.Tensor:
    """Return (A / R + A / C) sqrt(q)^exponent, [out, in]: RIA's score; R and C are A's row and column sums."""
    row, column = relative_importance(weight)
    return row.add_(column).mul_(activation(stats, exponent))


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
