"""DSnoT: swaps that a plain loop over rows and entries makes too, and what they never change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning_core.numerics.input_statistics import Stats
from pruning_core.refinements.dsnot import NEEDS, refine
from pruning_core.selection.masks import Selector
from pruning_core.spec.composition import Dsnot
from pruning_core.spec.patterns import MatrixWide, NofM, Pattern, Row

ROW, MATRIX, TWO_OF_FOUR = Row(), MatrixWide(), NofM(n=2, m=4)
seeds = st.integers(0, 2**31)


def stats_of(inputs: torch.Tensor, window: int = 16) -> Stats:
    return Stats(
        tokens=len(inputs),
        window=window,
        column_mean=inputs.mean(dim=0),
        column_mean_square=inputs.square().mean(dim=0),
        column_variance=inputs.var(dim=0, correction=0),
    )


def problem(
    seed: int, pattern: Pattern = ROW, shape: tuple[int, int] = (7, 24)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Stats, Selector]:
    """Return dense weight, moved survivors, mask, statistics and selector; inputs have means."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(shape, generator=generator)
    scale, shift = torch.rand(2, shape[1], generator=generator) + 0.2
    inputs = torch.randn(64, shape[1], generator=generator) * scale + 2 * shift - 1.4
    select = Selector(0.5, pattern)
    keep = select.keep_mask(dense.abs() * torch.rand(shape, generator=generator))
    moved = torch.where(keep, dense + 0.1 * torch.randn(shape, generator=generator), 0)
    return dense, moved, keep, stats_of(inputs), select


def loop(
    dense: np.ndarray, keep: np.ndarray, stats: Stats, params: Dsnot, group: int | None
) -> np.ndarray:
    """Independent reference: one row after the other, one swap after the other, in float64."""
    mean, square, variance = (
        value.double().numpy()
        for value in (stats.column_mean, stats.column_mean_square, stats.column_variance)
    )
    size = np.abs(dense)
    relative = size / size.sum(1, keepdims=True) + size / size.sum(0, keepdims=True)
    gain = size * np.abs(mean) / variance**params.variance_exponent
    cost = size * np.sqrt(square)
    if params.relative == "grow":
        gain = relative * np.sqrt(np.abs(mean)) / variance**params.variance_exponent
    if params.relative == "prune":
        cost = relative * square**0.25
    tolerance = 0.1 / stats.window if params.tolerance is None else params.tolerance
    result = keep.copy()
    for row in range(len(dense)):
        c = dense[row] * mean
        removed = [j for j in range(len(c)) if not keep[row, j]]
        kept = [j for j in range(len(c)) if keep[row, j]]
        error = sum(c[j] for j in removed)
        first = np.sign(error)
        for _ in range(params.max_cycles):
            side = np.sign(error)
            growable = [j for j in removed if c[j] * side > 0]
            if abs(error) <= tolerance or not growable:
                break
            grown = max(growable, key=lambda j: gain[row, j])
            if group is None:
                prunable = [j for j in kept if c[j] * side < 0]
            else:
                prunable = [j for j in kept if j // group == grown // group]
            if not prunable:
                break
            pruned = min(prunable, key=lambda j: cost[row, j])
            new = error - c[grown] + c[pruned]
            if (params.sign_check or group is not None) and np.sign(new) != first:
                break
            removed.remove(grown)
            kept.remove(pruned)
            result[row, grown], result[row, pruned] = True, False
            error = new
    return result


def errors(dense: torch.Tensor, keep: torch.Tensor, stats: Stats) -> torch.Tensor:
    assert stats.column_mean is not None
    contribution = dense.double() * stats.column_mean.double()
    return (contribution * ~keep).sum(dim=1).abs()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("pattern", [ROW, MATRIX, TWO_OF_FOUR, NofM(n=1, m=4), NofM(n=5, m=8)])
@pytest.mark.parametrize(
    "params",
    [
        Dsnot(),
        Dsnot(sign_check=False),
        Dsnot(sign_check=False, max_cycles=3, tolerance=0.3),
        Dsnot(tolerance=0.0, variance_exponent=0.0),
        Dsnot(variance_exponent=2.0, relative="grow"),
        Dsnot(sign_check=False, relative="prune"),
    ],
)
def test_the_mask_is_that_of_a_plain_loop(seed: int, pattern: Pattern, params: Dsnot) -> None:
    dense, moved, keep, stats, select = problem(seed, pattern)
    weight, result = refine(dense, moved, keep, stats, select, params)
    group = pattern.m if isinstance(pattern, NofM) else None
    expected = loop(dense.double().numpy(), keep.numpy(), stats, params, group)
    assert (result.numpy() == expected).all()
    stayed, grown = result & keep, result & ~keep
    assert torch.equal(weight[stayed], moved[stayed])
    assert torch.equal(weight[grown], dense[grown])
    assert not weight[~result].any()


@pytest.mark.parametrize("pattern", [ROW, MATRIX, TWO_OF_FOUR])
def test_something_is_swapped(pattern: Pattern) -> None:
    dense, moved, keep, stats, select = problem(0, pattern)
    result = refine(dense, moved, keep, stats, select, Dsnot())[1]
    assert int((result & ~keep).sum()) >= 5


def test_more_cycles_than_inputs_and_empty_queues_stop() -> None:
    dense, _, _, stats, select = problem(1, MATRIX)
    keep = torch.zeros_like(dense, dtype=torch.bool)
    keep[1] = True
    keep[2, 0] = keep[3, 1:] = True
    params = Dsnot(max_cycles=10_000, sign_check=False, tolerance=0.0)
    result = refine(dense, dense * keep, keep, stats, select, params)[1]
    assert (result.numpy() == loop(dense.double().numpy(), keep.numpy(), stats, params, None)).all()
    assert torch.equal(result.sum(dim=1), keep.sum(dim=1))


@given(
    seed=seeds,
    rows=st.integers(1, 6),
    columns=st.integers(1, 20),
    share=st.floats(0, 1),
    cycles=st.integers(1, 60),
    check=st.booleans(),
)
def test_rows_keep_their_counts_and_a_checked_error_never_rises(
    seed: int, rows: int, columns: int, share: float, cycles: int, check: bool
) -> None:
    dense, _, _, stats, select = problem(seed, MATRIX, (rows, columns))
    keep = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < share
    before = errors(dense, keep, stats)
    last = keep
    for most in (1, cycles):
        params = Dsnot(max_cycles=most, sign_check=check, tolerance=0.0)
        result = refine(dense, dense * keep, keep, stats, select, params)[1]
        assert torch.equal(result.sum(dim=1), keep.sum(dim=1))
        if check:
            now = errors(dense, result, stats)
            changed = (result != last).any(dim=1)
            assert (now <= before + 1e-5).all()
            assert (now[changed] < before[changed] + 1e-5).all()
            before, last = now, result


@given(seed=seeds, nm=st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (4, 8)]))
def test_n_of_m_stays_valid(seed: int, nm: tuple[int, int]) -> None:
    pattern = NofM(n=nm[0], m=nm[1])
    dense, moved, keep, stats, select = problem(seed, pattern, (5, 32))
    result = refine(dense, moved, keep, stats, select, Dsnot(tolerance=0.0, sign_check=False))[1]
    assert (result.reshape(-1, pattern.m).sum(dim=1) == pattern.n).all()


def test_with_n_of_m_the_sign_is_checked_even_when_switched_off() -> None:
    dense, moved, keep, stats, select = problem(3, TWO_OF_FOUR, (20, 32))
    masks = [
        refine(dense, moved, keep, stats, select, Dsnot(sign_check=check))[1]
        for check in (True, False)
    ]
    assert torch.equal(*masks)


@pytest.mark.parametrize("pattern", [ROW, TWO_OF_FOUR])
@pytest.mark.parametrize("check", [True, False])
def test_inputs_of_mean_zero_change_nothing(pattern: Pattern, check: bool) -> None:
    dense, moved, keep, stats, select = problem(4, pattern)
    silent = replace(stats, column_mean=torch.zeros(dense.shape[1]))
    params = Dsnot(sign_check=check, tolerance=0.0)
    weight, result = refine(dense, moved, keep, silent, select, params)
    assert torch.equal(result, keep)
    assert torch.equal(weight, moved)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("constant", ["one", "all"])
def test_constant_inputs_give_finite_weights_and_counts(exponent: float, constant: str) -> None:
    dense, moved, keep, stats, select = problem(5)
    assert stats.column_variance is not None
    variance = stats.column_variance.clone()
    variance[0 if constant == "one" else slice(None)] = 0
    still = replace(stats, column_variance=variance)
    params = Dsnot(variance_exponent=exponent, tolerance=0.0)
    weight, result = refine(dense, moved, keep, still, select, params)
    assert weight.isfinite().all()
    assert torch.equal(result.sum(dim=1), keep.sum(dim=1))
    if constant == "all":
        plain = refine(dense, moved, keep, stats, select, Dsnot(variance_exponent=0, tolerance=0.0))
        assert torch.equal(result, plain[1])


@pytest.mark.parametrize("window", [1, 4])
def test_an_unset_tolerance_is_a_tenth_over_the_window(window: int) -> None:
    dense, moved, keep, stats, select = problem(6, shape=(200, 24))
    stats = replace(stats, window=window)

    def mask(tolerance: float | None) -> torch.Tensor:
        params = Dsnot(sign_check=False, tolerance=tolerance)
        return refine(dense, moved, keep, stats, select, params)[1]

    assert torch.equal(mask(None), mask(0.1 / window))
    assert not torch.equal(mask(None), mask(0.05 / window))
    assert not torch.equal(mask(None), mask(0.2 / window))
    assert torch.equal(mask(1e9), keep)


def test_arguments_are_left_as_they_were() -> None:
    given_ = problem(7)
    copies = [value.clone() for value in given_[:3]]
    refine(*given_, Dsnot())
    assert all(torch.equal(one, other) for one, other in zip(given_[:3], copies, strict=True))
    assert set(NEEDS) == {"column_mean", "column_mean_square", "column_variance"}
