"""How sure a figure is: intervals of shares and of perplexities, McNemar's exact test. All of them hold their level, or are None."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from pruning_core.spec.report_parts.quality import Interval

Figures = npt.NDArray[np.float64]
CONFIDENCE = 0.95
FEWEST_UNITS = 10
"""Documents or windows below which skewed losses give more false alarms than the level allows, whatever the interval."""
FEWEST_ITEMS = 6
"""Questions below which even all of them lost have a p-value above 0.05."""
LARGEST_LOG = 700.0
"""The largest float64 is a little above exp of it."""


def share_interval(right: int, items: int) -> Interval:
    """Return the 95 % interval of a share (Clopper and Pearson, Biometrika 26, 1934): it misses at most 5 % at any size."""
    interval = stats.binomtest(right, items).proportion_ci(CONFIDENCE, method="exact")
    return Interval(low=float(interval.low), high=float(interval.high))


def mcnemar(lost: int, gained: int) -> float:
    """Return the two-sided p-value of the exact test: discordant pairs fall either way alike (McNemar, 1947)."""
    return float(stats.binomtest(lost, lost + gained, 0.5).pvalue) if lost + gained else 1.0


def perplexity_interval(losses: Figures, tokens: Figures) -> Interval | None:
    """Return the 95 % interval of exp(sum of losses / sum of tokens); None for fewer than `FEWEST_UNITS` units.

    Args:
        losses: Summed loss of each unit, [units].
        tokens: Predicted tokens of each unit, [units].
    """
    if len(tokens) < FEWEST_UNITS:
        return None
    low, high = _mean_interval(losses / tokens, tokens / tokens.sum())
    if high > LARGEST_LOG:
        return None
    return Interval(low=float(np.exp(low)), high=float(np.exp(high)))


def ratio_interval(dense: Figures, pruned: Figures, tokens: Figures) -> Interval | None:
    """Return the same of pruned over dense perplexity, both from the same units."""
    return perplexity_interval(pruned - dense, tokens)


def _mean_interval(values: Figures, weights: Figures) -> tuple[float, float]:
    """Return the 95 % interval of a mean of independent values whose weights add up to 1.

    Of equal weights and no skewness it is Student's. Unequal weights take the unbiased variance and the degrees of freedom
    of Bell and McCaffrey (Survey Methodology 28, 2002); for skewness the side of the longer tail is widened by the
    transformation of Hall (JRSS B 54, 1992), and the other side is left as it is.
    """
    mean = float(weights @ values)
    parts = weights * (values - mean) / np.sqrt(1 - weights)
    error = float(np.sqrt(parts @ parts))
    if error <= 1e-12 * abs(mean):
        return mean, mean
    reach = float(special.stdtrit(_degrees_of_freedom(weights), (1 + CONFIDENCE) / 2))
    effective = 1 / float(weights @ weights)
    skewness = float((parts**3).sum()) / error**3 * effective / max(effective - 2, 1.0)
    upper = max(reach, _without_skewness(reach, skewness))
    lower = min(-reach, _without_skewness(-reach, skewness))
    return mean - error * upper, mean - error * lower


def _degrees_of_freedom(weights: Figures) -> float:
    """Return those of the variance of a weighted mean of values that vary alike: units less one where weights are equal.

    By Satterthwaite's rule tr(M)^2 / tr(M^2), with M = A^(1/2) (I - 1 w') (I - w 1') A^(1/2) and A = diag(w^2 / (1 - w)).
    """
    share = weights @ weights
    scale = weights**2 / (1 - weights)
    total, first, second = scale.sum(), scale @ weights, scale @ weights**2
    trace = scale @ (1 - 2 * weights + share)
    diagonal = (scale**2) @ ((1 - 2 * weights + share) ** 2 - (share - 2 * weights) ** 2)
    beside = (share * total) ** 2 + 2 * second * total + 2 * first**2 - 4 * share * first * total
    return float(trace**2 / (diagonal + beside))


def _without_skewness(value: float, skewness: float) -> float:
    """Return the t whose transform t + a t^2 / 3 + a^2 t^3 / 27 + a / 6 is the value, for a skewness a of the mean."""
    if abs(skewness) < 1e-6:
        return value
    return float(np.cbrt(1 + skewness * (value - skewness / 6)) - 1) * 3 / skewness
