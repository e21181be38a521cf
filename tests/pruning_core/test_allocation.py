"""Ratios per block: exact means, exact counts, and the formulas of every allocation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pruning_core.allocations import alphapruning, owl, ramp
from pruning_core.errors import NumericalFailure
from pruning_core.numerics.input_statistics import STATISTICS
from pruning_core.plans.registry import allocation
from pruning_core.selection.ratios import bounded, removed_counts
from pruning_core.spec.composition import (
    UNIFORM,
    Allocation,
    AlphaPruning,
    BlockAllocation,
    DepthRamp,
    Owl,
)
from pruning_core.spec.patterns import removed_count

blocks = st.lists(st.tuples(st.floats(-2, 2), st.integers(1, 10**9)), min_size=1, max_size=40)
targets = st.floats(0.001, 0.95) | st.sampled_from([0.0, 0.5, 0.949999, 0.95])


def mean(ratios: list[float], weights: list[int]) -> float:
    return math.fsum(r * w for r, w in zip(ratios, weights, strict=True)) / sum(weights)


@given(blocks=blocks, target=targets)
def test_bounded_shifts_clips_and_keeps_the_mean(
    blocks: list[tuple[float, int]], target: float
) -> None:
    ratios, weights = [one[0] for one in blocks], [one[1] for one in blocks]
    found = bounded(ratios, weights, target)
    assert mean(found, weights) == pytest.approx(target, abs=1e-12)
    assert all(0 <= one <= 0.95 for one in found)
    inside = [(one, old) for one, old in zip(found, ratios, strict=True) if 0 < one < 0.95]
    shifts = [one - old for one, old in inside]
    assert not shifts or max(shifts) - min(shifts) < 1e-12
    for new, old in zip(found, ratios, strict=True):
        if shifts and new in (0, 0.95):
            assert (old + shifts[0] <= 1e-12) if new == 0 else (old + shifts[0] >= 0.95 - 1e-12)


def test_bounded_leaves_ratios_alone_that_fit() -> None:
    assert bounded([0.3, 0.6], [2, 1], 0.4) == pytest.approx([0.3, 0.6], abs=1e-15)


@pytest.mark.parametrize("target", [-0.1, 0.96, float("nan")])
def test_bounded_refuses_what_no_shift_reaches(target: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        bounded([0.5], [1], target)


sizes_of_blocks = st.lists(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=6), min_size=1, max_size=12
)


@given(
    sizes=sizes_of_blocks,
    ratio=st.floats(0.001, 0.95) | st.sampled_from([0.29, 0.5, 0.95]),
    seed=st.integers(0, 2**31),
    spread=st.floats(0, 2),
)
def test_counts_are_exact_and_near_their_shares(
    sizes: list[list[int]], ratio: float, seed: int, spread: float
) -> None:
    wanted = np.random.default_rng(seed).normal(scale=spread, size=len(sizes)).tolist()
    weights = [sum(block) for block in sizes]
    ratios = bounded(wanted, weights, ratio)
    counts = removed_counts(ratios, sizes, ratio)
    assert sum(map(sum, counts)) == removed_count(ratio, sum(weights))
    for share, block, found in zip(ratios, sizes, counts, strict=True):
        assert len(found) == len(block)
        for size, count in zip(block, found, strict=True):
            assert 0 <= count <= size
            assert abs(count - share * size) < 2


@given(
    sizes=sizes_of_blocks,
    ratio=st.floats(0.001, 1) | st.just(1.0),
    level=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_counts_are_exact_even_if_the_ratios_miss_the_total(
    sizes: list[list[int]], ratio: float, level: float, seed: int
) -> None:
    ratios = (np.random.default_rng(seed).random(len(sizes)) * level).tolist()
    counts = removed_counts(ratios, sizes, ratio)
    assert sum(map(sum, counts)) == removed_count(ratio, sum(map(sum, sizes)))
    for block, found in zip(sizes, counts, strict=True):
        assert all(0 <= count <= size for count, size in zip(found, block, strict=True))


def test_counts_of_a_large_model_are_exact() -> None:
    sizes = [[8192 * 8192, 8192 * 28672 + block] for block in range(80)]
    weights = [sum(block) for block in sizes]
    ratios = ramp.ratios([], weights, 0.6, DepthRamp(delta=0.12))
    counts = removed_counts(ratios, sizes, 0.6)
    assert sum(map(sum, counts)) == removed_count(0.6, sum(weights))


def test_largest_remainders_are_rounded_up() -> None:
    assert removed_counts([0.24, 0.76], [[10], [10]], 0.5) == [[2], [8]]
    assert removed_counts([0.5, 0.5], [[3, 8], [5, 6]], 0.49) == [[1, 4], [2, 3]]


Ratios = Callable[[list[float], list[int], float], list[float]]
ALLOCATIONS: dict[str, Ratios] = {
    "owl": lambda values, weights, s: owl.ratios(values, weights, s, Owl()),
    "alphapruning": lambda values, weights, s: alphapruning.ratios(
        values, weights, s, AlphaPruning()
    ),
    "ramp": lambda values, weights, s: ramp.ratios(values, weights, s, DepthRamp()),
}


@pytest.mark.parametrize("name", ALLOCATIONS)
@given(
    blocks=st.lists(st.tuples(st.floats(1.01, 20), st.integers(1, 10**9)), min_size=1, max_size=40),
    ratio=st.floats(0.06, 0.95),
)
def test_every_allocation_reaches_the_mean(
    name: str, blocks: list[tuple[float, int]], ratio: float
) -> None:
    weights = [one[1] for one in blocks]
    found = ALLOCATIONS[name]([one[0] for one in blocks], weights, ratio)
    assert mean(found, weights) == pytest.approx(ratio, abs=1e-12)
    assert all(0 <= one <= 0.95 for one in found)


VARYING = [kind() for kind in get_args(get_args(Allocation)[0]) if kind.varies]


@pytest.mark.parametrize("params", VARYING, ids=lambda params: params.name)
def test_each_allocation_is_one_file_that_agrees_with_its_class(params: BlockAllocation) -> None:
    made = allocation(params)
    assert bool(made.needs) == params.needs_calibration
    assert made.needs <= set(STATISTICS)
    if made.needs:
        assert made.measure is not None


def test_only_the_default_varies_nothing() -> None:
    assert {params.name for params in VARYING} == set(ALLOCATIONS)
    assert not UNIFORM.varies


@pytest.mark.parametrize("name", ["owl", "alphapruning"])
def test_equal_blocks_get_equal_ratios(name: str) -> None:
    assert ALLOCATIONS[name]([2.5] * 3, [1, 7, 2], 0.7) == pytest.approx([0.7] * 3, abs=1e-12)


def test_outliers_are_counted_over_all_matrices_of_a_block() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = [
        torch.rand(shape, generator=generator).pow(6) * scale
        for shape, scale in (((5, 7), 1.0), ((11, 3), 4.0), ((2, 2), 0.1))
    ]
    flat = [value for score in scores for value in score.flatten().tolist()]
    for threshold in (0.5, 2.0, 5.0):
        limit = threshold * sum(flat) / len(flat)
        expected = sum(value > limit for value in flat) / len(flat)
        assert owl.outliers(scores, threshold) == expected > 0
    assert owl.outliers([torch.ones(3, 4)], 1.5) == 0


def test_owl_follows_its_formula() -> None:
    shares, weights = [0.01, 0.04, 0.02], [3, 1, 2]
    found = owl.ratios(shares, weights, 0.6, Owl(spread=0.1))
    assert max(found) - min(found) == pytest.approx(0.2)
    assert found.index(min(found)) == 1
    raw = [(share - 0.01) / 0.03 * 0.2 for share in shares]
    centre = mean(raw, weights)
    assert found == pytest.approx([0.6 - (one - centre) for one in raw])


def plain_alpha(weight: np.ndarray) -> float:
    """Independent reference: every candidate and every tail in a plain loop."""
    values = np.sort(np.linalg.svd(weight, compute_uv=False) ** 2)
    values = values[values >= 1e-12 * values[-1]]
    counts, edges = np.histogram(np.log10(values), bins=100)
    peak = 10 ** edges[np.argmax(counts)]
    best, found = math.inf, math.nan
    for first, xmin in enumerate(values):
        if xmin > 1.5 * peak:
            break
        tail = values[first:]
        n = len(tail)
        denominator = sum(math.log(value) for value in tail) - n * math.log(xmin)
        if denominator < 1e-9 * n:
            continue
        alpha = 1 + n / denominator
        distance = max(
            abs(1 - (value / xmin) ** (1 - alpha) - k / n) for k, value in enumerate(tail)
        )
        if distance < best:
            best, found = distance, alpha
    return found


@pytest.mark.parametrize("shape", [(40, 40), (24, 60), (60, 24), (2, 9)])
@pytest.mark.parametrize("power", [0.0, 0.7])
def test_alpha_equals_a_plain_fit(shape: tuple[int, int], power: float) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = weight * torch.arange(1, shape[1] + 1) ** -power
    assert alphapruning.alpha(weight) == pytest.approx(plain_alpha(weight.numpy()), rel=1e-6)


def test_alpha_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(30, 50, generator=torch.Generator().manual_seed(2))
    whole = alphapruning.alpha(weight)
    monkeypatch.setattr(alphapruning, "CHUNK", 100)
    assert alphapruning.alpha(weight) == whole


def test_alpha_is_invariant_to_scale_and_transposition() -> None:
    weight = torch.randn(30, 50, generator=torch.Generator().manual_seed(3))
    expected = alphapruning.alpha(weight)
    assert alphapruning.alpha(weight * 2.0**-20) == expected
    assert alphapruning.alpha(weight * 3) == pytest.approx(expected, rel=1e-4)
    assert alphapruning.alpha(weight.T.contiguous()) == pytest.approx(expected, rel=1e-9)


def test_a_matrix_of_low_rank_has_an_alpha_and_its_zeros_do_not_count() -> None:
    generator = torch.Generator().manual_seed(4)
    left, right = torch.randn(40, 8, generator=generator), torch.randn(8, 40, generator=generator)
    weight = (left @ right).double()
    left, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))
    spectrum = torch.zeros(40, dtype=torch.float64)
    spectrum[:8] = torch.linspace(1, 3, 8)
    exact = left @ torch.diag(spectrum) @ left.T
    small = torch.diag(spectrum[:8])
    assert alphapruning.alpha(exact) == pytest.approx(alphapruning.alpha(small), rel=1e-6)
    assert math.isfinite(alphapruning.alpha(weight))


@pytest.mark.parametrize("weight", [torch.zeros(4, 4), torch.eye(5), torch.ones(1, 6)])
def test_a_spectrum_without_a_tail_is_an_error(weight: torch.Tensor) -> None:
    with pytest.raises(NumericalFailure, match="alphapruning"):
        alphapruning.alpha(weight)


def test_a_heavier_tail_has_a_smaller_alpha() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(5))
    heavy = weight * torch.arange(1, 65) ** -1.5
    assert alphapruning.alpha(heavy) < alphapruning.alpha(weight[:, :32])


def test_alphapruning_follows_its_formula() -> None:
    alphas, weights = [2.0, 4.0, 3.5], [3, 1, 2]
    found = alphapruning.ratios(alphas, weights, 0.6, AlphaPruning(epsilon=0.3))
    factors = [0.7, 1.3, 1.15]
    expected = [0.6 * factor / mean(factors, weights) for factor in factors]
    assert found == pytest.approx(expected, abs=1e-12)


@given(
    weights=st.lists(st.integers(1, 10**9), min_size=1, max_size=40),
    ratio=st.floats(0.05, 0.9),
    delta=st.floats(0, 0.5),
)
def test_the_ramp_rises_with_depth(weights: list[int], ratio: float, delta: float) -> None:
    assume(delta <= min(ratio, 0.95 - ratio))
    found = ramp.ratios([], weights, ratio, DepthRamp(delta=delta))
    assert mean(found, weights) == pytest.approx(ratio, abs=1e-12)
    assert found == sorted(found)


def test_the_ramp_follows_its_formula() -> None:
    found = ramp.ratios([], [1, 1, 1, 1], 0.5, DepthRamp(delta=0.3))
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=1e-12)
    assert ramp.ratios([], [7], 0.5, DepthRamp(delta=0.3)) == pytest.approx([0.5])
