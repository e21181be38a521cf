"""CRePE, a reconstruction after Park, arXiv 2606.01544: RIA with a term for a weight's 2-D neighbourhood.

A = |W|,  R_i, C_j its row and column sums,  M = mean of A over the k x k window around (i, j), cut at the border
score = (alpha * A/R + beta * A/C + gamma * N) * sqrt(q)^a
N by `neighbour`:  ratio            A / M / in
                   ratio_no_centre  as ratio, the mean taken without the centre
                   ratio_gauss      as ratio, the mean weighted by a Gaussian of standard deviation k / 4
                   smooth           M / mean(A) / in
                   score_map        mean over the window of A/R + A/C

The paper's exact formula was not readable; only its three terms, coefficients and kernel are known. Dividing by `in`
puts N on the scale of the row term, so that one set of coefficients means the same at every width.
(1, 1, 0) is RIA bit by bit. Windows never cross matrices or experts.
"""

from __future__ import annotations

import torch

from pruning_core.numerics.importance import activation, relative_importance
from pruning_core.numerics.input_statistics import Stats
from pruning_core.spec.element_methods import CRePE, Neighbour

NEEDS: tuple[str, ...] = ("column_mean_square",)
ALONE = 1e-6
"""A weight among zeros counts as this share of itself, so that its importance stays finite."""


def score(weight: torch.Tensor, stats: Stats, params: CRePE) -> torch.Tensor:
    """Return the importance of every weight, [out, in]."""
    row, column = relative_importance(weight)
    total = row.mul_(params.alpha).add_(column.mul_(params.beta))
    if params.gamma:
        near = neighbourhood(weight, params.kernel, params.neighbour)
        total.add_(near, alpha=params.gamma)
    return total.mul_(activation(stats, params.exponent))


def neighbourhood(weight: torch.Tensor, kernel: int, variant: Neighbour) -> torch.Tensor:
    """Return the term N that gamma multiplies, [out, in].

    Args:
        weight: [out, in].
        kernel: Odd side of the window.
        variant: Form of the term.
    """
    if variant == "score_map":
        row, column = relative_importance(weight)
        return window_mean(row + column, kernel)
    magnitude, width = weight.abs(), weight.shape[1]
    if variant == "smooth":
        return window_mean(magnitude, kernel) / _at_least_tiny(magnitude.mean()) / width
    mean = {
        "ratio": window_mean,
        "ratio_no_centre": _mean_of_others,
        "ratio_gauss": _gaussian_mean,
    }[variant]
    return magnitude / _at_least_tiny(mean(magnitude, kernel)) / width


def window_mean(matrix: torch.Tensor, kernel: int) -> torch.Tensor:
    """Return the mean over the k x k window around every entry, cut at the border; [out, in]."""
    sums = _window_sums(_window_sums(matrix, kernel, 1), kernel, 0)
    return sums.div_(_window_count(matrix, kernel))


def _window_sums(matrix: torch.Tensor, kernel: int, dim: int) -> torch.Tensor:
    """Return the sum of the k entries around every entry along one dimension.

    Runs double in length; those that add up to k are added: about 2 log2 k additions, and no cancellation.
    """
    size, reach = matrix.shape[dim], kernel // 2
    runs = torch.constant_pad_nd(matrix, (reach, reach) if dim == 1 else (0, 0, reach, reach))
    total, start, length = torch.zeros_like(matrix), 0, 1
    while True:
        if kernel & length:
            total += runs.narrow(dim, start, size)
            start += length
        if 2 * length > kernel:
            return total
        left = runs.shape[dim] - length
        runs = runs.narrow(dim, 0, left) + runs.narrow(dim, length, left)
        length *= 2


def _mean_of_others(magnitude: torch.Tensor, kernel: int) -> torch.Tensor:
    count = _window_count(magnitude, kernel)
    total = window_mean(magnitude, kernel) * count - magnitude
    others = total.clamp_(min=0) / (count - 1).clamp_(min=1)
    return torch.maximum(others, magnitude * ALONE)


def _window_count(matrix: torch.Tensor, kernel: int) -> torch.Tensor:
    """Return how many entries every window holds, [out, in]."""
    reach = kernel // 2
    sides = []
    for size in matrix.shape:
        place = torch.arange(size, device=matrix.device)
        sides.append((place + reach).clamp(max=size - 1) - (place - reach).clamp(min=0) + 1)
    return (sides[0][:, None] * sides[1]).to(matrix.dtype)


def _gaussian_mean(magnitude: torch.Tensor, kernel: int) -> torch.Tensor:
    place = torch.arange(kernel, device=magnitude.device, dtype=magnitude.dtype) - kernel // 2
    bell = torch.exp(-0.5 * (place / (kernel / 4)).square())
    both = torch.stack((magnitude, torch.ones_like(magnitude)))[:, None]
    both = torch.conv2d(both, bell.view(1, 1, 1, -1), padding=(0, kernel // 2))
    both = torch.conv2d(both, bell.view(1, 1, -1, 1), padding=(kernel // 2, 0))
    return both[0, 0] / both[1, 0]


def _at_least_tiny(mean: torch.Tensor) -> torch.Tensor:
    """A window of zeros has a weight of zero in it; any divisor then gives 0."""
    return mean.clamp(min=torch.finfo(mean.dtype).tiny)
