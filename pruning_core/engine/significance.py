"""How sure a figure is: Wilson's interval, McNemar's exact test, the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, bootstrap

from pruning_core.spec.report import Interval

Figures = npt.NDArray[np.float64]
CONFIDENCE = 0.95
RESAMPLES = 4999
SEED = 0


def wilson(right: int, items: int) -> Interval:
    """Return the 95 % interval of a share (Wilson, JASA 22, 1927)."""
    found = binomtest(right, items).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(low=float(found.low), high=float(found.high))


def mcnemar(lost: int, gained: int) -> float:
    """Return the two-sided p-value of the exact test: discordant pairs fall either way alike (McNemar, 1947)."""
    return float(binomtest(lost, lost + gained, 0.5).pvalue) if lost + gained else 1.0


def perplexity_interval(losses: Figures, tokens: Figures) -> Interval | None:
    """Return the 95 % percentile bootstrap of exp(sum of losses / sum of tokens); None for a single unit.

    Args:
        losses: Summed loss of each unit, [units].
        tokens: Predicted tokens of each unit, [units].
    """
    return _percentiles((losses, tokens))


def ratio_interval(dense: Figures, pruned: Figures, tokens: Figures) -> Interval | None:
    """Return the same of pruned over dense perplexity, both from the same units."""
    return _percentiles((pruned - dense, tokens))


def _percentiles(columns: Sequence[Figures]) -> Interval | None:
    if len(columns[0]) < 2:
        return None

    def statistic(losses: Figures, tokens: Figures, axis: int) -> Figures:
        mean: Figures = np.exp(losses.sum(axis=axis) / tokens.sum(axis=axis))
        return mean

    found = bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 1_000_000 // len(columns[0])),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(low=float(found.low), high=float(found.high))
