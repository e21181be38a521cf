"""Intervals and tests against what statistics books say."""

from __future__ import annotations

import numpy as np
import pytest

from pruning_core.engine.significance import mcnemar, perplexity_interval, ratio_interval, wilson


def test_wilson_as_in_the_textbook() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263 and 0 of 20."""
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    none = wilson(0, 20)
    assert (round(none.low, 4), round(none.high, 4)) == (0.0, 0.1611)


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 0, 1.0), (6, 0, 0.03125), (10, 2, 158 / 4096)],
)
def test_mcnemar_is_the_binomial_of_the_discordant(lost: int, gained: int, p_value: float) -> None:
    assert mcnemar(lost, gained) == pytest.approx(p_value)


def test_the_bootstrap_covers_the_true_perplexity_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        losses = generator.normal(3.0, 0.5, 60) * 100
        found = perplexity_interval(losses, np.full(60, 100.0))
        assert found is not None
        covered += found.low <= np.exp(3.0) <= found.high
    assert 180 <= covered <= 199  # 95 % of 200, give or take three standard deviations


def test_the_ratio_is_paired() -> None:
    """Documents differ far more than models do: paired, the difference is plain."""
    generator = np.random.default_rng(2)
    tokens = np.full(50, 200.0)
    dense = generator.normal(3.0, 1.0, 50) * tokens
    pruned = dense + 0.1 * tokens
    found = ratio_interval(dense, pruned, tokens)
    assert found is not None
    assert found.low == pytest.approx(np.exp(0.1))
    assert found.high == pytest.approx(np.exp(0.1))
    alone = perplexity_interval(pruned, tokens)
    assert alone is not None
    assert alone.high / alone.low > 1.3


def test_a_single_unit_has_no_interval_and_equal_ones_no_width() -> None:
    assert perplexity_interval(np.array([3.0]), np.array([1.0])) is None
    found = perplexity_interval(np.full(4, 30.0), np.full(4, 10.0))
    assert found is not None
    assert found.low == found.high == pytest.approx(np.exp(3.0))
