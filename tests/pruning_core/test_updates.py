"""Methods that move survivors, SparseGPT and ALPS, against plain NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pruning_core.element_methods import alps, sparsegpt
from pruning_core.numerics.input_statistics import Stats
from pruning_core.plans.registry import element
from pruning_core.selection.masks import Selector
from pruning_core.spec.element_methods import ALPS, ElementMethod, SparseGPT, Wanda
from pruning_core.spec.patterns import MatrixWide, NofM, Pattern, Row, removed_count
from tests.pruning_core.problems import (
    MATRIX,
    PATTERNS,
    ROW,
    SCHEDULES,
    TWO_OF_FOUR,
    Array,
    Mask,
    choose,
    loss,
    lowest,
    name_of,
    problem,
    seeds,
    selector,
    solved,
)

# SparseGPT


def column_by_column(
    weight: Array, gram: Array, select: Selector, params: SparseGPT
) -> tuple[Array, Mask]:
    """Independent reference: every column's update reaches all columns after it at once."""
    w, pattern = weight.copy(), select.pattern
    rows, width = w.shape
    damped = gram + params.damp * np.mean(np.diag(gram)) * np.eye(width)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    keep = np.ones(w.shape, dtype=bool)
    removed = 0
    for start in range(0, width, params.block):
        stop = min(start + params.block, width)
        scores = w[:, start:stop] ** 2 / np.diag(upper)[start:stop] ** 2
        if isinstance(pattern, MatrixWide):
            quota = removed_count(select.ratio, rows * stop) - removed
            keep[:, start:stop] = ~lowest(scores, quota)
            removed += quota
        if isinstance(pattern, Row):
            # a row's share of its first `stop` columns, so that the last span completes it
            quota = removed_count(select.ratio, width) * stop // width - removed
            for row in range(rows):
                keep[row, start:stop] = ~lowest(scores[row], quota)
            removed += quota
        for i in range(start, stop):
            if isinstance(pattern, NofM) and i % pattern.m == 0:
                group = slice(i, i + pattern.m)
                scores = w[:, group] ** 2 / np.diag(upper)[group] ** 2
                for row in range(rows):
                    keep[row, group] = ~lowest(scores[row], pattern.m - pattern.n)
            error = np.where(keep[:, i], 0, w[:, i]) / upper[i, i]
            w[:, i:] -= np.outer(error, upper[i, i:])
            w[~keep[:, i], i] = 0
    return w, keep


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
@pytest.mark.parametrize("block", [8, 16, 128])
def test_sparsegpt_is_the_plain_loop(pattern: Pattern, block: int, seed: int) -> None:
    weight, stats = problem(8, 40, seed)  # spans of 16: the last one is half as wide
    assert stats.gram is not None
    select, params = selector(pattern), SparseGPT(block=block)
    found, keep = element(params).prune(weight.clone(), stats, select)
    expected, mask = column_by_column(
        weight.double().numpy(), stats.gram.double().numpy(), select, params
    )
    assert (keep.numpy() == mask).all()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert not found[~keep].any()


@pytest.mark.parametrize("pattern", [ROW, MATRIX], ids=name_of)
@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_sparsegpt_carries_quotas_over_spans_that_do_not_divide_the_width(
    pattern: Pattern, ratio: float
) -> None:
    weight, stats = problem(8, 44, 5)
    assert stats.gram is not None
    select, params = selector(pattern, ratio), SparseGPT(block=7, damp=0.1)
    found, keep = element(params).prune(weight.clone(), stats, select)
    expected, mask = column_by_column(
        weight.double().numpy(), stats.gram.double().numpy(), select, params
    )
    assert (keep.numpy() == mask).all()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)
    # the same share of every span, to within a weight (a weight per row)
    for start in range(0, 44, 7):
        span = keep[:, start : start + 7]
        assert abs(int((~span).sum()) - ratio * span.numel()) <= (8 if pattern == ROW else 1)


@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 10), st.integers(2, 40)),
    block=st.integers(1, 20),
    share=st.floats(0, 0.95),
    pattern=st.sampled_from([ROW, MATRIX]),
)
@example(seed=0, shape=(10, 10), block=3, share=0.95, pattern=ROW)
@settings(deadline=None)
def test_sparsegpt_removes_what_an_allocation_asks_for(
    seed: int, shape: tuple[int, int], block: int, share: float, pattern: Pattern
) -> None:
    weight, stats = problem(*shape, seed)
    count = removed_count(share, weight.numel())
    select = Selector(share, pattern, count)
    found, keep = element(SparseGPT(block=block)).prune(weight.clone(), stats, select)
    assert int((~keep).sum()) == count
    assert not found[~keep].any()
    if pattern == ROW:
        per_row = keep.sum(dim=1)
        assert int(per_row.max() - per_row.min()) <= 1


@pytest.mark.parametrize("pattern", [ROW, MATRIX, TWO_OF_FOUR], ids=name_of)
def test_sparsegpt_on_independent_inputs_is_magnitude_within_spans(pattern: Pattern) -> None:
    weight, _ = problem(8, 40, 1)
    stats = Stats(tokens=1000, gram=torch.eye(40))
    select = selector(pattern)
    found, keep = element(SparseGPT(block=8)).prune(weight.clone(), stats, select)
    assert torch.equal(found, weight * keep)
    for start in range(0, 40, 8):
        span = slice(start, start + 8)
        assert (keep[:, span].numpy() == choose(weight[:, span].abs().numpy(), select)).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
def test_sparsegpt_loses_less_than_its_mask_alone(pattern: Pattern, seed: int) -> None:
    weight, stats = problem(16, 48, seed)
    found, keep = element(SparseGPT(block=16)).prune(weight.clone(), stats, selector(pattern))
    updated, masked = loss(found - weight, stats).sum(), loss(weight * keep - weight, stats).sum()
    assert updated < 0.9 * masked


@pytest.mark.parametrize("pattern", [ROW, MATRIX, TWO_OF_FOUR], ids=name_of)
def test_how_a_span_is_split_into_panels_changes_nothing(
    pattern: Pattern, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, stats = problem(8, 40, 2)
    results = []
    for panel in (1, 5, 12, 1000):
        monkeypatch.setattr(sparsegpt, "PANEL", panel)
        results.append(element(SparseGPT(block=20)).prune(weight.clone(), stats, selector(pattern)))
    for found, keep in results[1:]:
        assert torch.equal(keep, results[0][1])
        torch.testing.assert_close(found, results[0][0], rtol=1e-4, atol=1e-5)


def test_sparsegpt_removes_dead_channels_first_and_no_more() -> None:
    weight, stats = problem(8, 40, 3)
    assert stats.gram is not None
    dead = [1, 9, 30]
    stats.gram[dead] = stats.gram[:, dead] = 0
    found, keep = element(SparseGPT(block=20)).prune(weight.clone(), stats, selector(MATRIX, 0.5))
    assert not keep[:, dead].any()
    assert int((~keep).sum()) == 160
    assert torch.isfinite(found).all()


def test_more_damping_moves_survivors_less() -> None:
    weight, stats = problem(8, 40, 4)

    def moved(damp: float) -> float:
        found, keep = element(SparseGPT(damp=damp)).prune(weight.clone(), stats, selector(MATRIX))
        return float((found - weight)[keep].square().sum())

    assert moved(10) < 0.5 * moved(1) < 0.5 * moved(0.01)


# ALPS


def scaled_problem(weight: Array, gram: Array, damp: float) -> tuple[Array, Array, Array]:
    damped = gram + damp * np.mean(np.diag(gram)) * np.eye(len(gram))
    scale = np.sqrt(np.diag(damped))
    return damped / np.outer(scale, scale), weight * scale, scale


def adaptive(weight: Array, gram: Array, select: Selector, damp: float) -> tuple[Array, Mask]:
    """Independent reference: the schedule that raises rho until the support settles."""
    a, x, scale = scaled_problem(weight, gram, damp)
    b, identity = x @ a, np.eye(len(a))
    support = choose(np.abs(x), select)
    first = x * support
    z, y, rho, raised = first, np.zeros_like(x), 0.1, False
    for step in range(1, 301):
        v = (b - y + rho * z) @ np.linalg.inv(a + rho * identity)
        z = (v + y / rho) * choose(np.abs(v + y / rho), select)
        y = y + rho * (v - z)
        if step % 3 == 0:
            now = z != 0
            change = np.sum(now != support) / np.sum(support)
            support = now
            if (raised and change == 0) or (step > 30 and change < 0.0003):
                break
            if not raised and change <= 0.005:
                rho /= 5
                if change > 0:
                    z, y = first, np.zeros_like(x)
            else:
                raised = True
                rho *= 1.3 if change > 0.1 else 1.2 if change > 0.005 else 1.1
    keep = choose(np.abs(v), select)
    return v * keep / scale, keep


def gradual(weight: Array, gram: Array, select: Selector, damp: float) -> tuple[Array, Mask]:
    """Independent reference: 20 steps, a cubic ramp over 15 of them."""
    a, x, scale = scaled_problem(weight, gram, damp)
    a = a + 0.1 * np.eye(len(a))
    b, inverse = x @ a, np.linalg.inv(a + np.eye(len(a)))
    v, y = x, np.zeros_like(x)
    for t in range(20):
        sizes = np.abs(v + y)
        keep = choose(sizes, select)
        if t < 15:
            share = select.ratio - select.ratio * (1 - (t + 1) / 15) ** 3
            if isinstance(select.pattern, NofM):
                open_to_removal = np.where(keep, np.inf, sizes)
                keep = ~lowest(open_to_removal, removed_count(share, sizes.size))
            else:
                keep = choose(sizes, select, share)
        z = (v + y) * keep
        y = y + v - z
        v = (b + z - y) @ inverse
    keep = choose(np.abs(v + y), select)
    return (v + y) * keep / scale, keep


REFERENCES: dict[str, Callable[[Array, Array, Selector, float], tuple[Array, Mask]]] = {
    "adaptive": adaptive,
    "gradual": gradual,
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
@pytest.mark.parametrize("schedule", REFERENCES)
def test_alps_is_the_plain_iteration(schedule: Any, pattern: Pattern, seed: int) -> None:
    weight, stats = problem(9, 24, seed, dtype=torch.float64)
    assert stats.gram is not None
    select = selector(pattern, 0.6)
    params = ALPS(schedule=schedule, cg_steps=0)
    found, keep = element(params).prune(weight.clone(), stats, select)
    expected, mask = REFERENCES[schedule](weight.numpy(), stats.gram.numpy(), select, params.damp)
    assert (keep.numpy() == mask).all()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rows", "width", "undecided"), [(40, 48, 3), (200, 96, 200 * 96)])
def test_alps_starts_again_where_it_was_too_stiff_and_ends_where_little_changes(
    rows: int, width: int, undecided: int, seed: int
) -> None:
    """Masks so large that few changes are a small share of them, at the start or at the end."""
    weight, stats = problem(rows, width, seed, tokens=60, dtype=torch.float64)
    if undecided < weight.numel():
        generator = torch.Generator().manual_seed(seed)
        large = selector(MATRIX).keep_mask(torch.rand(rows, width, generator=generator))
        weight = torch.where(large, weight.sign() + weight, weight / 30)
        weight.view(-1)[:undecided] = torch.linspace(0.5, 0.6, undecided).double()
        inputs = torch.randn(5000, width, generator=generator).double()
        stats = Stats(tokens=5000, gram=inputs.T @ inputs / 5000)
    assert stats.gram is not None
    found, keep = element(ALPS(cg_steps=0)).prune(weight.clone(), stats, selector(MATRIX))
    expected, mask = adaptive(weight.numpy(), stats.gram.numpy(), selector(MATRIX), 0.01)
    assert (keep.numpy() == mask).all()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
@pytest.mark.parametrize("params", SCHEDULES, ids=lambda params: params["schedule"])
def test_conjugate_gradients_after_alps_lower_the_loss(
    params: dict[str, Any], pattern: Pattern
) -> None:
    weight, stats = problem(16, 48, 6)
    losses, masks = [], []
    for steps in (0, 1, 10):
        found, keep = element(ALPS(cg_steps=steps, **params)).prune(
            weight.clone(), stats, selector(pattern)
        )
        losses.append(loss(found - weight, stats))
        masks.append(keep)
    assert torch.equal(masks[0], masks[2])
    assert (losses[2] <= losses[0] * (1 + 1e-4)).all()
    assert losses[2].sum() < losses[1].sum() < losses[0].sum()


@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
@pytest.mark.parametrize("params", SCHEDULES, ids=lambda params: params["schedule"])
def test_alps_on_independent_inputs_keeps_what_is_clearly_larger_as_it_was(
    params: dict[str, Any], pattern: Pattern
) -> None:
    generator = torch.Generator().manual_seed(7)
    select = selector(pattern)
    large = select.keep_mask(torch.rand(8, 40, generator=generator))
    sizes = torch.rand(8, 40, generator=generator)
    weight = torch.where(large, 1 + sizes, -sizes / 10)
    stats = Stats(tokens=1000, gram=torch.eye(40))
    found, keep = element(ALPS(**params)).prune(weight.clone(), stats, select)
    assert torch.equal(keep, large)
    torch.testing.assert_close(found, weight * large, rtol=2e-3, atol=0)


@pytest.mark.parametrize("pattern", PATTERNS, ids=name_of)
@pytest.mark.parametrize("params", SCHEDULES, ids=lambda params: params["schedule"])
def test_alps_on_independent_inputs_is_magnitude_but_for_near_ties(
    params: dict[str, Any], pattern: Pattern
) -> None:
    """Its dual variables let weights of nearly equal size change places until the end."""
    weight, _ = problem(8, 40, 7)
    stats, select = Stats(tokens=1000, gram=torch.eye(40)), selector(pattern)
    found, keep = element(ALPS(**params)).prune(weight.clone(), stats, select)
    magnitude = torch.from_numpy(choose(weight.abs().numpy(), select))
    torch.testing.assert_close(found, weight * keep, rtol=2e-3, atol=2e-3)
    assert int((keep != magnitude).sum()) <= 0.08 * keep.numel()
    least = loss(weight * magnitude - weight, stats).sum()
    assert loss(found - weight, stats).sum() <= 1.04 * least


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", [ROW, MATRIX, TWO_OF_FOUR], ids=name_of)
@pytest.mark.parametrize("params", SCHEDULES, ids=lambda params: params["schedule"])
def test_alps_beats_wanda_with_exact_least_squares(
    params: dict[str, Any], pattern: Pattern, seed: int
) -> None:
    weight, stats = problem(32, 64, seed)
    select = selector(pattern)
    found, _ = element(ALPS(**params)).prune(weight.clone(), stats, select)
    _, keep = element(Wanda()).prune(weight.clone(), stats, select)
    best = torch.from_numpy(solved(weight, keep, stats))
    assert loss(found - weight, stats).sum() < 0.95 * loss(best - weight.double(), stats).sum()


@pytest.mark.parametrize("params", SCHEDULES, ids=lambda params: params["schedule"])
def test_alps_with_dead_channels_is_finite_and_exact(params: dict[str, Any]) -> None:
    weight, stats = problem(8, 40, 8)
    assert stats.gram is not None
    dead = [0, 17, 39]
    stats.gram[dead] = stats.gram[:, dead] = 0
    found, keep = element(ALPS(**params)).prune(weight.clone(), stats, selector(MATRIX))
    assert torch.isfinite(found).all()
    assert not keep[:, dead].any()
    assert int(keep.sum()) == 160


def test_the_schedules_differ_and_the_adaptive_one_is_the_better() -> None:
    weight, stats = problem(32, 64, 9)
    losses = [
        loss(element(ALPS(**params)).prune(weight.clone(), stats, selector(ROW))[0] - weight, stats)
        for params in SCHEDULES
    ]
    assert losses[0].sum() < losses[1].sum()


def test_matrices_of_one_input_share_their_factorisations(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    original = alps.damped_cholesky

    def counting(gram: torch.Tensor, added: float) -> torch.Tensor:
        calls.append(added)
        return original(gram, added)

    monkeypatch.setattr(alps, "damped_cholesky", counting)
    weight, stats = problem(8, 40, 10)
    first = element(ALPS()).prune(weight.clone(), stats, selector(ROW))
    made = len(calls)
    assert made == len(set(calls)) > 1
    second = element(ALPS()).prune(weight.clone(), stats, selector(ROW))
    assert len(calls) == made
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


# What both have in common


@pytest.mark.parametrize("method", [SparseGPT(), ALPS(), ALPS(schedule="gradual")])
@pytest.mark.parametrize("pattern", [ROW, MATRIX, TWO_OF_FOUR], ids=name_of)
def test_permuted_rows_give_permuted_rows(method: ElementMethod, pattern: Pattern) -> None:
    weight, stats = problem(8, 40, 11)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    found, keep = element(method).prune(weight.clone(), stats, selector(pattern))
    moved, mask = element(method).prune(weight[order], stats, selector(pattern))
    assert torch.equal(mask, keep[order])
    torch.testing.assert_close(moved, found[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [SparseGPT(), ALPS()])
def test_the_score_that_orders_channels_is_wanda_s(method: ElementMethod) -> None:
    weight, stats = problem(8, 40, 12)
    part = element(method)
    torch.testing.assert_close(
        part.score(weight, stats, method), element(Wanda()).score(weight, stats, Wanda())
    )


@pytest.mark.parametrize("method", [SparseGPT(block=8), ALPS()])
def test_an_order_of_channels_is_that_of_weight_and_statistics(method: ElementMethod) -> None:
    """What is pruned in another order is pruned as if the model had it in that order."""
    weight, stats = problem(8, 40, 13)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    moved = weight[:, order], stats.permuted(order)
    score = element(method).score(weight, stats, method)[:, order]
    found = element(method).prune(moved[0].clone(), moved[1], selector(TWO_OF_FOUR), score)
    plain = element(method).prune(moved[0].clone(), moved[1], selector(TWO_OF_FOUR))
    assert all(torch.equal(*pair) for pair in zip(found, plain, strict=True))
