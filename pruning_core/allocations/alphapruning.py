"""AlphaPruning: Lu, Zhou, Liu, Wang, Mahoney, Yang, arXiv 2410.10912.

per matrix: lambda_i = squared singular values, ascending; peak = left edge of the fullest of 100 bins of log10 lambda
for every candidate xmin = lambda_i <= 1.5 peak, with the n values from it upwards as its tail:
    alpha = 1 + n / (sum of log lambda over the tail - n log xmin)
    KS = max over k = 0 .. n - 1 of |1 - (lambda_k / xmin)^(1 - alpha) - k / n|
the alpha > 1 of the smallest KS is the matrix's; a block's is the mean over its matrices
block: min .. max of alpha maps to 1 - epsilon .. 1 + epsilon, times s over its weighted mean; then shifted and clipped
to a mean of exactly s. A lighter tail, that is a larger alpha, is pruned more.

Departures from the authors' code: its lower bound for xmin, which compares a logarithm with a value and so excludes
next to nothing, is left out; eigenvalues below 1e-12 of the largest are dropped; ratios are clipped to [0, 0.95] with
the mean kept, where theirs are not clipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from pruning_core.errors import NumericalFailure
from pruning_core.numerics.input_statistics import Stats
from pruning_core.selection.ratios import bounded, weighted_mean
from pruning_core.spec.composition import AlphaPruning

NEEDS: tuple[str, ...] = ()
BINS = 100
CHUNK = 1 << 21
"""Numbers in one batch of candidates x eigenvalues: 16 MiB."""
ROUNDING = 1e-9
"""A tail whose values differ by no more than this, on average and relatively, is a single value."""


def measure(matrices: Iterable[tuple[torch.Tensor, Stats]], params: AlphaPruning) -> float:
    """Return alpha of one block.

    Args:
        matrices: Weight [out, in] and empty statistics, one after another.
        params: Parameters.
    """
    alphas = [alpha(weight) for weight, _ in matrices]
    return sum(alphas) / len(alphas)


def alpha(weight: torch.Tensor) -> float:
    """Return the exponent of the power law fitted to the spectrum of a matrix [out, in].

    Raises:
        NumericalFailure: fewer than two different eigenvalues are left to fit.
    """
    logs = _log_spectrum(weight)
    candidates = logs[logs <= _log_peak(logs) + math.log(1.5)]
    tails = torch.arange(len(logs), 0, -1, device=logs.device, dtype=logs.dtype)
    above = logs.flip(0).cumsum(0).flip(0) - tails * logs
    tails, above = tails[: len(candidates)], above[: len(candidates)]
    fits = above > ROUNDING * tails
    if not fits.any():
        raise NumericalFailure("alphapruning: the spectrum of a matrix has no tail to fit")
    exponents = 1 + tails / above
    distances = _distances(logs, exponents, tails).masked_fill(~fits, torch.inf)
    return float(exponents[distances.argmin()])


def ratios(
    alphas: Sequence[float], weights: Sequence[int], ratio: float, params: AlphaPruning
) -> list[float]:
    """Return the ratio of every block.

    Args:
        alphas: Per block.
        weights: Prunable weights of each block.
        ratio: s.
        params: Parameters.
    """
    low, high = min(alphas), max(alphas)
    width = 2 * params.epsilon / (high - low) if high > low else 0.0
    factors = [1 - params.epsilon + width * (alpha - low) for alpha in alphas]
    scale = ratio / weighted_mean(factors, weights)
    return bounded([scale * factor for factor in factors], weights, ratio)


def _log_spectrum(weight: torch.Tensor) -> torch.Tensor:
    """Return the natural logarithms of the eigenvalues relative to the largest, ascending, float64."""
    wide = weight.double() if weight.shape[0] <= weight.shape[1] else weight.double().T
    values = torch.linalg.eigvalsh(wide @ wide.T)
    values = values[values > 0]
    if not len(values):
        raise NumericalFailure("alphapruning: a matrix is zero and has no spectrum")
    relative: torch.Tensor = values / values[-1]
    return relative[relative >= 1e-12].log()


def _log_peak(logs: torch.Tensor) -> float:
    """Return the left edge of the fullest bin of the logarithms; the first of equals."""
    low, high = float(logs[0]), float(logs[-1])
    fullest = int(logs.histc(BINS, low, high).argmax()) if high > low else 0
    return low + (high - low) * fullest / BINS


def _distances(logs: torch.Tensor, exponents: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
    """Return the Kolmogorov-Smirnov distance of every candidate, [candidates].

    Args:
        logs: Of all eigenvalues, ascending, [eigenvalues].
        exponents: alpha of the tail that begins at each candidate, [candidates].
        tails: Number of eigenvalues in it, [candidates].
    """
    places = torch.arange(len(logs), device=logs.device)
    step = max(1, CHUNK // len(logs))
    distances = []
    for start in range(0, len(exponents), step):
        own = places[start : min(start + step, len(exponents)), None]
        model = -torch.expm1((1 - exponents[own]) * (logs - logs[own]))
        gap = (model - (places - own) / tails[own]).abs_()
        distances.append(gap.masked_fill_(places < own, 0).amax(dim=1))
    return torch.cat(distances)
