"""The masked least-squares polish: what it must never do, and where it must arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.masked_least_squares import masked_least_squares
from pruning_core.plans.registry import element, refinement
from pruning_core.spec.composition import Polish
from pruning_core.spec.element_methods import ALPS, SparseGPT
from tests.pruning_core.problems import (
    MATRIX,
    ROW,
    TWO_OF_FOUR,
    loss,
    problem,
    seeds,
    selector,
    solved,
)


def polished(
    dense: torch.Tensor, start: torch.Tensor, keep: torch.Tensor, stats: Stats, **params: Any
) -> torch.Tensor:
    part = refinement(Polish(**params))
    weight, mask = part.apply(dense, start, keep, stats, selector(ROW), part.params)
    assert torch.equal(mask, keep)
    return weight


def check_polish(
    seed: int,
    shape: tuple[int, int],
    tokens: int,
    share: float,
    noise: float,
    damp: float,
    steps: int,
) -> None:
    dense, stats = problem(*shape, seed, tokens=tokens)
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(shape, generator=generator) < share
    start = (dense + noise * torch.randn(shape, generator=generator)) * keep
    found = polished(dense, start, keep, stats, steps=steps, damp=damp)
    assert torch.isfinite(found).all()
    assert not found[~keep].any()
    before, after = loss(start - dense, stats), loss(found - dense, stats)
    assert (after <= before + 1e-5 * (loss(dense, stats) + before)).all()


@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 6), st.integers(1, 24)),
    tokens=st.integers(1, 60),
    share=st.floats(0, 1),
    noise=st.sampled_from([0.0, 0.1, 3.0]),
    damp=st.sampled_from([0.0, 1e-4, 0.01, 1.0, 10.0]),
    steps=st.integers(1, 10),
)
@settings(deadline=None)
def test_polishing_never_raises_the_loss_of_a_row(
    seed: int,
    shape: tuple[int, int],
    tokens: int,
    share: float,
    noise: float,
    damp: float,
    steps: int,
) -> None:
    """Whatever came in, however few the tokens."""
    check_polish(seed, shape, tokens, share, noise, damp, steps)


@pytest.mark.parametrize("steps", [30, 100, 400])
@pytest.mark.parametrize(
    ("tokens", "damp", "share"), [(1, 0.0, 0.75), (2, 0.0, 0.95), (5, 1.0, 0.5), (60, 0.01, 0.7)]
)
def test_steps_after_convergence_do_no_harm(
    tokens: int, damp: float, share: float, steps: int
) -> None:
    """Residuals are rounding errors by then, and must not be divided by each other."""
    for seed in range(20):
        check_polish(seed, (5, 20), tokens, share, 3.0, damp, steps)


def test_a_perfect_start_stays() -> None:
    dense, stats = problem(8, 40, 14)
    keep = torch.ones_like(dense, dtype=torch.bool)
    assert torch.equal(polished(dense, dense, keep, stats, steps=20), dense)


@pytest.mark.parametrize("seed", range(3))
def test_many_steps_without_damping_solve_the_normal_equations(seed: int) -> None:
    dense, stats = problem(8, 24, seed, dtype=torch.float64)
    assert stats.gram is not None
    keep = selector(MATRIX).keep_mask(dense.abs())
    found = masked_least_squares(dense, dense * keep, keep, stats.gram, 0.0, 100)
    np.testing.assert_allclose(found.numpy(), solved(dense, keep, stats), rtol=1e-4, atol=1e-5)


def test_many_steps_with_damping_minimise_loss_and_distance_to_the_start() -> None:
    """The pull is towards what came in, not towards the dense weight or zero."""
    dense, stats = problem(6, 24, 15, dtype=torch.float64)
    assert stats.gram is not None
    keep = selector(ROW).keep_mask(dense.abs())
    start = (dense + torch.randn(6, 24, generator=torch.Generator().manual_seed(1))) * keep
    found = polished(dense, start, keep, stats, steps=200, damp=0.3).numpy()
    gram = stats.gram.numpy()
    pull = 0.3 * np.mean(np.diag(gram))
    for row, mask in enumerate(keep.numpy()):
        left = gram[np.ix_(mask, mask)] + pull * np.eye(mask.sum())
        right = gram[mask] @ dense[row].numpy() + pull * start[row, mask].numpy()
        np.testing.assert_allclose(found[row, mask], np.linalg.solve(left, right), rtol=1e-4)


@pytest.mark.parametrize("spread", [1, 100])
def test_ten_steps_come_close_to_the_optimum_whatever_the_scale_of_channels(spread: float) -> None:
    dense, stats = problem(16, 48, 16)
    assert stats.gram is not None
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    scale = torch.logspace(0, np.log10(spread), 48)[order]
    dense, stats = dense / scale, Stats(tokens=400, gram=stats.gram * scale * scale[:, None])
    keep = selector(ROW).keep_mask(dense.abs() * scale)
    best = torch.from_numpy(solved(dense, keep, stats)) - dense.double()
    found = polished(dense, dense * keep, keep, stats, steps=10, damp=0.0) - dense
    assert loss(found, stats).sum() <= 1.001 * loss(best, stats).sum()


def test_polish_improves_what_sparsegpt_leaves() -> None:
    dense, stats = problem(16, 48, 17)
    start, keep = element(SparseGPT(block=16)).prune(dense.clone(), stats, selector(TWO_OF_FOUR))
    found = polished(dense, start, keep, stats)
    assert loss(found - dense, stats).sum() < 0.95 * loss(start - dense, stats).sum()


def test_a_start_with_weights_outside_the_mask_loses_them() -> None:
    dense, stats = problem(8, 24, 18)
    keep = selector(ROW).keep_mask(dense.abs())
    assert torch.equal(
        polished(dense, dense, keep, stats), polished(dense, dense * keep, keep, stats)
    )


def test_arguments_are_left_as_they_were() -> None:
    dense, stats = problem(8, 24, 19)
    assert stats.gram is not None
    keep = selector(ROW).keep_mask(dense.abs())
    start = dense * keep
    given_ = [dense, start, keep, stats.gram]
    copies = [value.clone() for value in given_]
    polished(dense, start, keep, stats)
    for method in (SparseGPT(), ALPS(), ALPS(schedule="gradual")):
        element(method).prune(dense, stats, selector(ROW))
    assert all(torch.equal(*pair) for pair in zip(given_, copies, strict=True))
