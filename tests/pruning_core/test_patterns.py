"""Exact counts under every pattern, on random shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning_core.errors import NumericalFailure, UnsupportedPattern
from pruning_core.selection.masks import Selector
from pruning_core.spec.patterns import MatrixWide, NofM, Pattern, Row, removed_count

shapes = st.tuples(st.integers(1, 9), st.integers(1, 40))
ratios = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**31)


def scores(shape: tuple[int, int], seed: int, levels: int = 4) -> torch.Tensor:
    """Return scores with many ties."""
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed)).float()


def lowest_first(groups: np.ndarray, count: int) -> np.ndarray:
    """Independent reference: a stable sort per group."""
    keep = np.ones(groups.shape, dtype=bool)
    order = np.argsort(groups, axis=1, kind="stable")[:, :count]
    np.put_along_axis(keep, order, values=False, axis=1)
    return keep


@given(shape=shapes, ratio=ratios, seed=seeds)
def test_row_pattern_removes_the_lowest_of_each_row(
    shape: tuple[int, int], ratio: float, seed: int
) -> None:
    score = scores(shape, seed)
    keep = Selector(ratio, Row()).keep_mask(score)
    assert (keep.numpy() == lowest_first(score.numpy(), removed_count(ratio, shape[1]))).all()


@given(shape=shapes, ratio=ratios, seed=seeds)
def test_matrix_pattern_removes_the_lowest_of_all(
    shape: tuple[int, int], ratio: float, seed: int
) -> None:
    score = scores(shape, seed)
    keep = Selector(ratio, MatrixWide()).keep_mask(score)
    expected = lowest_first(score.numpy().reshape(1, -1), removed_count(ratio, score.numel()))
    assert (keep.numpy().reshape(1, -1) == expected).all()


@given(
    rows=st.integers(1, 6),
    groups=st.integers(1, 8),
    nm=st.tuples(st.integers(1, 7), st.integers(2, 8)).filter(lambda nm: nm[0] < nm[1]),
    seed=seeds,
)
def test_n_of_m_keeps_n_in_every_group(
    rows: int, groups: int, nm: tuple[int, int], seed: int
) -> None:
    n, m = nm
    score = scores((rows, groups * m), seed)
    keep = Selector(1 - n / m, NofM(n=n, m=m)).keep_mask(score)
    assert (keep.numpy().reshape(-1, m) == lowest_first(score.numpy().reshape(-1, m), m - n)).all()


@st.composite
def selectors(draw: st.DrawFn) -> tuple[Selector, tuple[int, int]]:
    """Every pattern, with a ratio or with a count of the whole matrix."""
    m, n = draw(st.sampled_from([(2, 1), (4, 2), (4, 1), (8, 5), (7, 3)]))
    rows, width = draw(st.integers(1, 9)), m * draw(st.integers(1, 6))
    pattern: Pattern = draw(st.sampled_from([Row(), MatrixWide(), NofM(n=n, m=m)]))
    if isinstance(pattern, NofM):
        return Selector(1 - n / m, pattern), (rows, width)
    count = draw(st.none() | st.integers(0, rows * width))
    return Selector(draw(ratios), pattern, count), (rows, width)


@given(chosen=selectors(), seed=seeds, exponent=st.integers(-20, 20))
def test_scaling_the_scores_changes_nothing(
    chosen: tuple[Selector, tuple[int, int]], seed: int, exponent: int
) -> None:
    select, shape = chosen
    score = scores(shape, seed, levels=1000)
    assert torch.equal(select.keep_mask(score), select.keep_mask(score * 2.0**exponent))


@given(chosen=selectors(), seed=seeds, levels=st.sampled_from([1, 3, 10**6]))
def test_the_total_is_what_goes(
    chosen: tuple[Selector, tuple[int, int]], seed: int, levels: int
) -> None:
    select, shape = chosen
    assert int((~select.keep_mask(scores(shape, seed, levels))).sum()) == select.total(shape)


@given(shape=shapes, share=st.floats(0, 1), seed=seeds, levels=st.sampled_from([2, 10**6]))
def test_a_count_is_spread_over_rows_and_the_cheapest_extras_go(
    shape: tuple[int, int], share: float, seed: int, levels: int
) -> None:
    score = scores(shape, seed, levels)
    count = round(share * score.numel())
    keep = Selector(share, Row(), count).keep_mask(score)
    base, extra = divmod(count, shape[0])
    expected = lowest_first(score.numpy(), base)
    if extra:
        following = np.where(expected, score.numpy(), np.inf)
        following[following == np.inf] = score.max() + 1
        cheapest = following.min(axis=1)
        for row in np.argsort(cheapest, kind="stable")[:extra]:
            expected[row, following[row].argmin()] = False
    assert (keep.numpy() == expected).all()
    assert abs(keep.sum(dim=1) - keep.sum(dim=1).min()).max() <= 1


@given(shape=shapes, share=st.floats(0, 1), seed=seeds)
def test_a_count_of_a_matrix_is_its_lowest(shape: tuple[int, int], share: float, seed: int) -> None:
    score = scores(shape, seed)
    count = round(share * score.numel())
    keep = Selector(share, MatrixWide(), count).keep_mask(score)
    assert (keep.numpy().reshape(1, -1) == lowest_first(score.numpy().reshape(1, -1), count)).all()


def test_an_intermediate_ratio_forgets_the_count() -> None:
    select = Selector(0.5, Row(), 17).at(0.25)
    assert select.total((4, 8)) == 8


def test_a_count_may_be_nothing_where_a_ratio_may_not() -> None:
    select = Selector(0.0, Row(), 0)
    select.check("some.weight", (8, 4))
    assert select.keep_mask(torch.rand(8, 4)).all()


def test_counts_are_safe_against_rounding() -> None:
    assert removed_count(0.29, 100) == 29
    assert removed_count(0.5, 7) == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error(bad: float) -> None:
    score = torch.ones(2, 4)
    score[1, 2] = bad
    with pytest.raises(NumericalFailure):
        Selector(0.5, Row()).keep_mask(score)


def test_a_width_that_m_does_not_divide_is_refused() -> None:
    with pytest.raises(UnsupportedPattern, match="groups of 4"):
        Selector(0.5, NofM(n=2, m=4)).check("some.weight", (8, 6))


def test_a_ratio_that_removes_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedPattern, match="removes 0 of 4"):
        Selector(0.1, Row()).check("some.weight", (8, 4))
