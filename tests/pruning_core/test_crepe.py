"""RIA and CRePE: scores that plain loops over weights and windows give too, borders, zeros, refusals."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pruning_core.element_methods import crepe, ria
from pruning_core.element_methods.crepe import neighbourhood, window_mean
from pruning_core.numerics.importance import relative_importance
from pruning_core.numerics.input_statistics import Stats
from pruning_core.spec.element_methods import RIA, CRePE, Neighbour
from pruning_core.spec.prune import PruneSpec

Array = npt.NDArray[np.float64]
VARIANTS: tuple[Neighbour, ...] = get_args(Neighbour)
KERNELS = [1, 3, 5, 7, 9, 15, 31, 65]
seeds = st.integers(0, 2**31)


def random_weight(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def random_stats(width: int, seed: int = 0) -> Stats:
    generator = torch.Generator().manual_seed(seed)
    return Stats(tokens=9, column_mean_square=torch.rand(width, generator=generator) * 9 + 0.01)


def windows(matrix: Array, kernel: int) -> list[tuple[int, int, Array, Array]]:
    """Every position with its window and the offsets within it, cut at the border."""
    found, reach = [], kernel // 2
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            rows = [r for r in range(i - reach, i + reach + 1) if 0 <= r < matrix.shape[0]]
            columns = [c for c in range(j - reach, j + reach + 1) if 0 <= c < matrix.shape[1]]
            offsets = np.array([[(r - i) ** 2 + (c - j) ** 2 for c in columns] for r in rows])
            found.append((i, j, matrix[np.ix_(rows, columns)], offsets))
    return found


def plain_mean(matrix: Array, kernel: int) -> Array:
    result = np.zeros_like(matrix)
    for i, j, window, _ in windows(matrix, kernel):
        result[i, j] = window.mean()
    return result


def plain_ria_terms(a: Array) -> tuple[Array, Array]:
    rows, columns = np.zeros_like(a), np.zeros_like(a)
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            rows[i, j] = a[i, j] / a[i].sum() if a[i].any() else 0
            columns[i, j] = a[i, j] / a[:, j].sum() if a[:, j].any() else 0
    return rows, columns


def plain_neighbourhood(a: Array, kernel: int, variant: Neighbour) -> Array:
    """Independent reference: one window after the other."""
    if variant == "score_map":
        return plain_mean(sum(plain_ria_terms(a)), kernel)
    result = np.zeros_like(a)
    for i, j, window, squares in windows(a, kernel):
        if variant == "smooth":
            mean = a.mean()
            result[i, j] = window.mean() / mean if mean else 0
        elif a[i, j]:
            bell = np.exp(-0.5 * squares / (kernel / 4) ** 2)
            others = (window.sum() - a[i, j]) / max(1, window.size - 1)
            divisor = {
                "ratio": window.mean(),
                "ratio_no_centre": max(others, 1e-6 * a[i, j]),
                "ratio_gauss": (bell * window).sum() / bell.sum(),
            }[variant]
            result[i, j] = a[i, j] / divisor
    return result / a.shape[1]


# RIA


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_ria_is_the_plain_formula(exponent: float) -> None:
    weight, stats = random_weight(4, 6), random_stats(6)
    assert stats.column_mean_square is not None
    a, q = np.abs(weight.double().numpy()), stats.column_mean_square.double().numpy()
    expected = np.zeros_like(a)
    for i in range(4):
        for j in range(6):
            relative = a[i, j] / a[i].sum() + a[i, j] / a[:, j].sum()
            expected[i, j] = relative * math.sqrt(q[j]) ** exponent
    found = ria.score(weight, stats, RIA(exponent=exponent))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_ria_without_activations_needs_none_that_are_alive() -> None:
    weight = random_weight(4, 6)
    silent = Stats(tokens=9, column_mean_square=torch.zeros(6))
    assert torch.equal(
        ria.score(weight, silent, RIA(exponent=0)),
        ria.score(weight, random_stats(6), RIA(exponent=0)),
    )
    assert not ria.score(weight, silent, RIA()).any()


# CRePE


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)), seed=seeds, exponent=st.floats(0, 2)
)
@settings(deadline=None)
def test_crepe_of_one_one_zero_is_ria_bit_by_bit(
    shape: tuple[int, int], seed: int, exponent: float
) -> None:
    weight, stats = random_weight(*shape, seed), random_stats(shape[1], seed)
    method = CRePE(alpha=1, beta=1, gamma=0, kernel=9, exponent=exponent)
    assert torch.equal(
        crepe.score(weight, stats, method), ria.score(weight, stats, RIA(exponent=exponent))
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("rows", "width", "kernel"), [(5, 7, 3), (4, 6, 5), (3, 40, 7), (9, 2, 9)])
def test_crepe_is_the_plain_formula(variant: Neighbour, rows: int, width: int, kernel: int) -> None:
    weight, stats = random_weight(rows, width), random_stats(width)
    assert stats.column_mean_square is not None
    a, q = np.abs(weight.double().numpy()), stats.column_mean_square.double().numpy()
    by_row, by_column = plain_ria_terms(a)
    near = plain_neighbourhood(a, kernel, variant)
    expected = (0.3 * by_row + 0.9 * by_column + 0.8 * near) * np.sqrt(q) ** 1.5
    method = CRePE(alpha=0.3, beta=0.9, gamma=0.8, kernel=kernel, neighbour=variant, exponent=1.5)
    found = crepe.score(weight, stats, method)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_neighbourhood_is_that_of_a_plain_loop(variant: Neighbour, kernel: int) -> None:
    weight = random_weight(11, 20, kernel)
    weight[2] = weight[:, 7] = weight[5:8, 12:15] = 0
    expected = plain_neighbourhood(np.abs(weight.double().numpy()), kernel, variant)
    np.testing.assert_allclose(
        neighbourhood(weight, kernel, variant).numpy(), expected, rtol=2e-4, atol=1e-9
    )


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.integers(0, 32).map(lambda half: 2 * half + 1),
    seed=seeds,
)
@settings(deadline=None)
def test_window_means_are_those_of_a_plain_loop(
    shape: tuple[int, int], kernel: int, seed: int
) -> None:
    matrix = random_weight(*shape, seed).abs()
    np.testing.assert_allclose(
        window_mean(matrix, kernel).numpy(), plain_mean(matrix.double().numpy(), kernel), rtol=1e-5
    )


@pytest.mark.parametrize("kernel", [33, 65, 127, 255])
def test_wide_windows_lose_nothing_to_rounding(kernel: int) -> None:
    """A running sum would: one huge weight, and windows that no longer hold it."""
    matrix = random_weight(40, 300).abs()
    matrix[0, 0] = 1e8
    expected = np.array([window.mean() for *_, window, _ in windows(matrix.double().numpy(), 3)])
    np.testing.assert_allclose(window_mean(matrix, 3).numpy().ravel(), expected, rtol=1e-5)
    reach, exact = kernel // 2, matrix.double().numpy()
    found = window_mean(matrix, kernel).numpy()
    for i, j in [(0, 0), (39, 299), (20, 150), (39, reach), (39, reach + 1), (0, 299 - reach)]:
        rows, columns = (
            slice(max(0, i - reach), i + reach + 1),
            slice(max(0, j - reach), j + reach + 1),
        )
        assert found[i, j] == pytest.approx(exact[rows, columns].mean(), rel=1e-5)


@pytest.mark.parametrize("variant", ["ratio", "ratio_no_centre", "ratio_gauss", "smooth"])
@pytest.mark.parametrize("kernel", [3, 9, 65])
def test_a_constant_matrix_has_the_same_neighbourhood_up_to_its_corners(
    variant: Neighbour, kernel: int
) -> None:
    near = neighbourhood(torch.full((6, 10), -0.3), kernel, variant)
    torch.testing.assert_close(near, torch.full((6, 10), 1 / 10), rtol=1e-5, atol=0)


def test_a_window_as_large_as_the_matrix_compares_with_its_mean() -> None:
    weight = random_weight(6, 10)
    for kernel in (19, 21, 255):
        expected = weight.abs() / weight.abs().mean() / 10
        torch.testing.assert_close(neighbourhood(weight, kernel, "ratio"), expected)


def test_the_neighbourhood_term_has_the_size_of_the_row_term() -> None:
    """Both average about 1 / in, so that one set of coefficients means the same at every width."""
    for width in (64, 256):
        weight = random_weight(128, width, width)
        near = neighbourhood(weight, 9, "ratio").mean() * width
        row = relative_importance(weight)[0].mean() * width
        assert float(near) == pytest.approx(float(row), rel=0.05)


def test_a_weight_among_small_ones_gains_and_one_among_large_ones_loses() -> None:
    weight = torch.ones(9, 18)
    weight[:, 9:] = 10
    weight[4, 4] = weight[4, 13] = 5
    near = neighbourhood(weight, 3, "ratio")
    assert near[4, 4] > 3 * near[0, 0]
    assert near[4, 13] < 0.6 * near[0, 17]


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_and_columns_of_zeros_score_zero_or_what_surrounds_them_never_nan(
    variant: Neighbour,
) -> None:
    weight = random_weight(8, 12)
    weight[3:6] = 0
    weight[:, 8:] = 0
    method = CRePE(gamma=1, kernel=3, neighbour=variant)
    found = crepe.score(weight, random_stats(12), method)
    assert torch.isfinite(found).all()
    assert not found[4, 10]  # nothing but zeros around it
    if variant not in ("smooth", "score_map"):
        assert not found[weight == 0].any()
    assert not crepe.score(torch.zeros(8, 12), random_stats(12), method).any()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e18, 1e30])
def test_neither_tiny_nor_huge_weights_change_the_scores(variant: Neighbour, size: float) -> None:
    weight, stats = random_weight(8, 12), random_stats(12)
    method = CRePE(gamma=1, kernel=5, neighbour=variant)
    found = crepe.score(weight * size, stats, method)
    torch.testing.assert_close(found, crepe.score(weight, stats, method), rtol=1e-4, atol=0)


# Refusals


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kernel": 4}, "kernel must be odd"),
        ({"kernel": 0}, "greater than or equal to 1"),
        ({"kernel": 257}, "less than or equal to 255"),
        ({"alpha": 0, "beta": 0}, "all zero"),
        ({"alpha": -1}, "greater than or equal to 0"),
        ({"gamma": math.nan}, "finite"),
        ({"neighbour": "square"}, "Input should be 'ratio'"),
        ({"preset": "x", "alpha": 0.5}, "give either alpha, or a preset"),
        ({"preset": "x", "gamma": 1, "kernel": 5}, "give either gamma, kernel, or a preset"),
        ({"preset": "x", "neighbour": "smooth"}, "give either neighbour"),
        ({"search": {"name": "pho"}, "beta": 0.5}, "give either beta"),
        ({"search": {"name": "pho"}, "preset": "x"}, "a preset or a search, not both"),
        ({"search": {"name": "random"}}, "does not match any of the expected tags"),
        ({"search": {"name": "pho", "population": 3}}, "greater than or equal to 4"),
        ({"search": {"name": "pho", "save_as": "../x"}}, "match pattern"),
    ],
)
def test_bad_parameters_are_refused_with_the_reason(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PruneSpec.model_validate({"method": {"name": "crepe", **fields}, "sparsity": 0.5})


def test_coefficients_may_be_partly_zero_and_a_preset_may_keep_its_exponent() -> None:
    for fields in ({"alpha": 0, "beta": 0, "gamma": 1}, {"preset": "x", "exponent": 1}):
        spec = PruneSpec.model_validate({"method": {"name": "crepe", **fields}, "sparsity": 0.5})
        assert spec.method.model_dump(include=set(fields)) == fields
