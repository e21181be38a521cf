"""Intervals and tests against what statistics books say, and against how often they are wrong where nothing changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from pruning_core.evaluate.intervals import (
    FEWEST_ITEMS,
    FEWEST_UNITS,
    Figures,
    _degrees_of_freedom,
    mcnemar,
    perplexity_interval,
    ratio_interval,
    share_interval,
)

Draw = Callable[[np.random.Generator, int], Figures]
REPEATS = 3000
CHANGES: dict[str, Draw] = {
    "normal": lambda draw, units: draw.normal(size=units),
    "skewed up": lambda draw, units: draw.exponential(size=units) - 1,
    "skewed down": lambda draw, units: np.exp(0.125) - draw.lognormal(0, 0.5, units),
    "heavy tails": lambda draw, units: draw.standard_t(3, units),
}
LENGTHS: dict[str, Draw] = {
    "equal": lambda _, units: np.full(units, 100.0),
    "of 20 to 500": lambda draw, units: draw.integers(20, 501, units).astype(float),
    "lognormal": lambda draw, units: np.round(draw.lognormal(5, 1, units)) + 1,
}


def test_shares_as_in_the_textbook() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 5: 81 of 263 and 0 of 20."""
    found = share_interval(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2527, 0.3676)
    none = share_interval(0, 20)
    assert (round(none.low, 4), round(none.high, 4)) == (0.0, 0.1684)


@pytest.mark.parametrize("items", [1, 5, 10, 25, 100])
def test_the_interval_of_a_share_misses_at_most_one_time_in_twenty(items: int) -> None:
    right = np.arange(items + 1)
    found = [share_interval(int(one), items) for one in right]
    low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
    for share in np.linspace(0.01, 0.99, 99):
        missed = (share < low) | (share > high)
        assert stats.binom.pmf(right[missed], items, share).sum() <= 0.05


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (6, 0, 0.03125), (10, 2, 158 / 4096)],
)
def test_mcnemar_is_the_binomial_of_the_discordant(lost: int, gained: int, p_value: float) -> None:
    assert mcnemar(lost, gained) == pytest.approx(p_value)


def test_mcnemar_raises_no_more_false_alarms_than_it_says() -> None:
    for discordant in range(1, 30):
        lost = np.arange(discordant + 1)
        alarms = [one for one in lost if mcnemar(int(one), discordant - int(one)) < 0.05]
        assert stats.binom.pmf(alarms, discordant, 0.5).sum() < 0.05
    assert mcnemar(FEWEST_ITEMS, 0) < 0.05 <= mcnemar(FEWEST_ITEMS - 1, 0)


@pytest.mark.parametrize(
    ("change", "length", "units", "least"),
    [
        ("normal", "equal", FEWEST_UNITS, 0.03),
        ("normal", "equal", 16, 0.03),
        ("normal", "equal", 100, 0.04),
        ("skewed up", "equal", FEWEST_UNITS, 0.04),
        ("skewed up", "of 20 to 500", 16, 0.03),
        ("skewed down", "equal", FEWEST_UNITS, 0.04),
        ("skewed down", "lognormal", 40, 0),
        ("heavy tails", "equal", 16, 0.03),
        ("heavy tails", "of 20 to 500", FEWEST_UNITS, 0),
        ("normal", "lognormal", 16, 0),
    ],
)
def test_equal_models_are_called_unlike_one_time_in_twenty(
    change: str, length: str, units: int, least: float
) -> None:
    """At most 6 % of 3,000, whose standard error is 0.4 %; very unequal lengths leave it below 4 %."""
    draw = np.random.default_rng(1)
    alarms = 0
    for _ in range(REPEATS):
        tokens = LENGTHS[length](draw, units)
        dense = draw.normal(3, 1, units) * tokens
        found = ratio_interval(dense, dense + 0.02 * CHANGES[change](draw, units) * tokens, tokens)
        assert found is not None
        alarms += not found.low <= 1 <= found.high
    assert least <= alarms / REPEATS <= 0.06


@pytest.mark.parametrize("units", [1, 2, 4, FEWEST_UNITS - 1])
def test_few_units_say_nothing(units: int) -> None:
    tokens = np.full(units, 100.0)
    assert perplexity_interval(3 * tokens, tokens) is None
    assert ratio_interval(2 * tokens, 3 * tokens, tokens) is None


def test_the_interval_of_a_perplexity_covers_the_true_one_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        found = perplexity_interval(draw.normal(3.0, 0.5, 60) * 100, np.full(60, 100.0))
        assert found is not None
        covered += found.low <= np.exp(3.0) <= found.high
    assert 929 <= covered <= 971  # 95 % of 1000, give or take three standard deviations


def test_equal_lengths_without_skewness_give_the_t_interval() -> None:
    means = 3 + np.array([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]) / 10
    found = perplexity_interval(100 * means, np.full(10, 100.0))
    assert found is not None
    low, high = stats.ttest_1samp(means, 0).confidence_interval()
    assert (np.log(found.low), np.log(found.high)) == pytest.approx((low, high))


def test_the_longer_tail_widens_its_side() -> None:
    means = 3 + np.array([-1, -1, -1, -1, -1, -1, -1, -1, -1, 9]) / 10
    found = perplexity_interval(100 * means, np.full(10, 100.0))
    assert found is not None
    low, high = stats.ttest_1samp(means, 0).confidence_interval()
    assert np.log(found.low) == pytest.approx(low)
    assert np.log(found.high) > high + 0.1


def test_the_degrees_of_freedom_are_satterthwaites() -> None:
    """Against the matrix that the closed form comes from, and units less one where lengths are equal."""
    weights = np.array([5.0, 1, 2, 2, 7, 3, 1, 1, 4, 9])
    weights /= weights.sum()
    root = np.diag(weights / np.sqrt(1 - weights)) @ (np.eye(10) - np.outer(np.ones(10), weights))
    matrix = root @ root.T
    assert _degrees_of_freedom(weights) == pytest.approx(
        np.trace(matrix) ** 2 / np.trace(matrix @ matrix)
    )
    assert _degrees_of_freedom(np.full(12, 1 / 12)) == pytest.approx(11)


def test_the_ratio_is_paired() -> None:
    """Documents differ far more than models do: paired, the difference is plain."""
    draw = np.random.default_rng(2)
    tokens = np.full(50, 200.0)
    dense = draw.normal(3.0, 1.0, 50) * tokens
    pruned = dense + 0.1 * tokens
    found = ratio_interval(dense, pruned, tokens)
    assert found is not None
    assert found.low == pytest.approx(np.exp(0.1))
    assert found.high == pytest.approx(np.exp(0.1))
    alone = perplexity_interval(pruned, tokens)
    assert alone is not None
    assert alone.high / alone.low > 1.3


def test_equal_units_have_no_width_and_a_boundless_interval_is_none() -> None:
    tokens = np.full(FEWEST_UNITS, 10.0)
    found = perplexity_interval(3 * tokens, tokens)
    assert found is not None
    assert found.low == found.high == pytest.approx(np.exp(3.0))
    wild = tokens * np.array([3.0] * (FEWEST_UNITS - 1) + [9000])
    assert perplexity_interval(wild, tokens) is None
