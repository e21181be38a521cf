"""The searches of CRePE's coefficients: proxy, CMA-ES, hill climb."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.gini import Part, gini, part_gini
from bench.search import PARTS, pilot_points, proxies
from pruning_core.element_methods import crepe
from pruning_core.errors import NumericalFailure
from pruning_core.numerics.input_statistics import Stats
from pruning_core.searches.hill_climb import climb
from pruning_core.searches.pho import Proxy, minimise
from pruning_core.searches.space import GRID, RIA, Trial, coefficients, kernel_at
from pruning_core.spec.element_methods import CRePE, Neighbour
from pruning_core.spec.search import HillClimb, Pho

SHAPES = [(6, 8), (10, 7), (9, 9), (30, 40), (6, 8)]
scores = st.lists(st.floats(2**-10, 1000, width=32), min_size=1, max_size=50)


def ascending(values: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.sort(np.asarray(values, dtype=np.float32))


def matrices(shapes: list[tuple[int, int]] = SHAPES) -> list[tuple[torch.Tensor, Stats]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(shape, generator=generator),
            Stats(tokens=9, column_mean_square=torch.rand(shape[1], generator=generator) + 0.01),
        )
        for shape in shapes
    ]


def proxy(observed: list[tuple[torch.Tensor, Stats]], **settings: Any) -> Proxy:
    made = Proxy(
        settings.pop("params", CRePE()), settings.pop("ratio", 0.4), **({"seed": 0} | settings)
    )
    for weight, stats in observed:
        made.observe(weight, stats)
    return made


def plain_gini(values: list[float]) -> float:
    """Mean absolute difference of all pairs over twice the mean."""
    x = np.asarray(values, dtype=np.float64)
    return float(np.abs(x[:, None] - x).mean() / (2 * x.mean())) if x.any() else 0.0


def plain_scores(weight: torch.Tensor, stats: Stats, g: float, b: float, k: int) -> list[float]:
    """CRePE's score, weight by weight, in float64."""
    assert stats.column_mean_square is not None
    a = np.abs(weight.numpy().astype(np.float64))
    q = stats.column_mean_square.numpy().astype(np.float64)
    alpha, beta, gamma = 2 * (1 - g) * b, 2 * (1 - g) * (1 - b), 2 * g
    found = []
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            window = a[max(0, i - k // 2) : i + k // 2 + 1, max(0, j - k // 2) : j + k // 2 + 1]
            near = a[i, j] / window.mean() / a.shape[1]
            terms = alpha * a[i, j] / a[i].sum() + beta * a[i, j] / a[:, j].sum() + gamma * near
            found.append(terms * math.sqrt(q[j]) ** 0.5)
    return found


def plain_part(values: list[float], ratio: float, part: Part) -> list[float]:
    order = sorted(values)
    removed = math.floor(ratio * len(order) + 1e-6)
    return {
        "kept": order[removed:],
        "removed": order[:removed],
        "masked": [0.0] * removed + order[removed:],
        "all": order,
    }[part]


# The Gini index


@given(scores)
def test_the_index_is_half_the_relative_mean_difference(values: list[float]) -> None:
    assert gini(ascending(values)) == pytest.approx(plain_gini(values), abs=2e-6)


@given(scores, st.sampled_from([1e-12, 0.3, 7.0, 1e9]))
def test_the_index_ignores_the_scale(values: list[float], factor: float) -> None:
    scaled = ascending(values) * np.float32(factor)
    assert gini(scaled) == pytest.approx(gini(ascending(values)), abs=2e-6)


@pytest.mark.parametrize("count", [1, 2, 10_000])
def test_equal_scores_have_an_index_of_zero(count: int) -> None:
    assert gini(ascending([0.3] * count)) == pytest.approx(0, abs=1e-6)
    assert gini(ascending([0.0] * count)) == 0


def test_a_single_score_among_zeros_holds_nearly_everything() -> None:
    assert gini(ascending([0.0] * 99 + [5.0])) == pytest.approx(0.99)
    assert gini(ascending([5.0]), zeros=99) == pytest.approx(0.99)


def test_the_index_of_a_half_normal() -> None:
    draw = np.random.default_rng(0).standard_normal(1 << 14)
    assert gini(ascending(np.abs(draw))) == pytest.approx(math.sqrt(2) - 1, abs=0.01)


def test_a_part_without_scores_has_an_index_of_zero() -> None:
    assert part_gini(ascending([1, 2, 3]), 0, "removed") == 0


# The proxy


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("point", [RIA, (0.3, 0.9, 3), (0.8, 0.2, 5), (1.0, 0.5, 65)])
def test_the_proxy_is_the_plain_formula(point: tuple[float, float, int], part: Part) -> None:
    observed = matrices([(6, 8), (10, 7), (1, 5)])
    expected = np.mean(
        [plain_gini(plain_part(plain_scores(w, s, *point), 0.4, part)) for w, s in observed]
    )
    assert proxies(proxy(observed), 0.4, point)[part] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("neighbour", get_args(Neighbour))
def test_the_proxy_reads_the_scores_that_crepe_prunes_by(neighbour: Neighbour) -> None:
    alpha, beta, gamma = coefficients(0.6, 0.3)
    method = CRePE(neighbour=neighbour, exponent=1.5)
    pruned_by = method.model_copy(
        update={"alpha": alpha, "beta": beta, "gamma": gamma, "kernel": 5}
    )
    observed = matrices()
    found = proxy(observed, params=method).scores(0.6, 0.3, 5)
    for (weight, stats), (values, _) in zip(observed, found, strict=True):
        expected = crepe.score(weight, stats, pruned_by).flatten()
        torch.testing.assert_close(torch.from_numpy(values), expected)


@pytest.mark.parametrize("point", [RIA, (0.3, 0.9, 3), (1.0, 0.5, 65)])
def test_the_objective_is_the_energy_that_matrices_and_rows_lose(
    point: tuple[float, float, int],
) -> None:
    observed = matrices([(6, 8), (10, 7), (1, 5)])
    expected = []
    for w, stats in observed:
        assert stats.column_mean_square is not None
        energy = (w.double().square() * stats.column_mean_square.double()).numpy()
        order = np.argsort(plain_scores(w, stats, *point), kind="stable")
        lost = np.zeros(w.numel())
        lost[order[: math.floor(0.4 * w.numel() + 1e-6)]] = 1
        gone = energy * lost.reshape(w.shape)
        rows = (gone.sum(axis=1) / energy.sum(axis=1)).mean()
        expected.append(rows + gone.sum() / energy.sum())
    assert proxy(observed).objective(*point) == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_sample_stands_for_its_matrix() -> None:
    observed = matrices([(300, 200)])
    whole = proxies(proxy(observed, positions=1 << 20), 0.4, (0.3, 0.5, 7))
    sample = proxies(proxy(observed, positions=10_000), 0.4, (0.3, 0.5, 7))
    assert set(whole) == {"energy", *PARTS}
    for name in whole:
        assert sample[name] != whole[name]
        assert sample[name] == pytest.approx(whole[name], abs=0.01)


def test_the_seed_decides_the_sample() -> None:
    def value(seed: int) -> float:
        return proxy(matrices(), seed=seed, positions=100).objective(0.3, 0.5, 7)

    assert value(1) == value(1) != value(2)


def test_the_order_of_observation_does_not_matter() -> None:
    forth = proxy(matrices(), positions=60)
    back = proxy(matrices()[::-1], positions=60)
    assert forth.objective(0.4, 0.3, 15) == pytest.approx(back.objective(0.4, 0.3, 15), abs=1e-12)


def test_the_proxy_ignores_the_scale_of_weights_and_inputs() -> None:
    scaled = [
        (weight * 8, Stats(tokens=9, column_mean_square=stats.column_mean_square * 16))
        for weight, stats in matrices()
        if stats.column_mean_square is not None
    ]
    value = proxy(matrices()).objective(0.4, 0.3, 3)
    assert proxy(scaled).objective(0.4, 0.3, 3) == pytest.approx(value, abs=1e-6)


def test_a_matrix_of_zeros_counts_as_even() -> None:
    zeros = (torch.zeros(4, 6), Stats(tokens=9, column_mean_square=torch.ones(6)))
    one = proxy(matrices([(6, 8)])).objective(0.4, 0.3, 3)
    both = proxy([*matrices([(6, 8)]), zeros]).objective(0.4, 0.3, 3)
    assert both == pytest.approx(one / 2)


def test_scores_that_are_not_finite_are_an_error() -> None:
    (weight, stats), *_ = matrices()
    weight[2, 3] = math.nan
    with pytest.raises(NumericalFailure):
        proxy([(weight, stats)]).objective(*RIA)


def test_a_kernel_off_the_grid_is_an_error() -> None:
    with pytest.raises(ValueError):
        proxy(matrices()).objective(0.1, 0.5, 11)


# The space


@given(st.floats(0, 1), st.floats(0, 1))
def test_coefficients_are_shares_of_two(g: float, b: float) -> None:
    assert min(coefficients(g, b)) >= 0
    assert sum(coefficients(g, b)) == pytest.approx(2)


def test_ria_is_a_point_of_the_space() -> None:
    assert coefficients(*RIA[:2]) == (1, 1, 0)


def test_every_kernel_can_be_reached() -> None:
    assert [kernel_at(i / 6) for i in range(7)] == list(GRID)


def test_pilot_points_put_one_value_into_every_stratum() -> None:
    points = pilot_points(24, seed=3)
    assert points == pilot_points(24, seed=3) != pilot_points(24, seed=4)
    for axis in (0, 1):
        assert sorted(math.floor(point[axis] * 24) for point in points) == list(range(24))
    assert {kernel for *_, kernel in points} == set(GRID)


# The searches


def bowl(g: float, b: float, kernel: int) -> float:
    """Lowest at (0.6, 0.3, 9)."""
    return 2 * (g - 0.6) ** 2 + (b - 0.3) ** 2 + 0.05 * (GRID.index(kernel) - 3) ** 2


def ria_is_best(g: float, b: float, kernel: int) -> float:
    return g + abs(b - 0.5)


Objective = Callable[[float, float, int], float]


def pho_trials(objective: Objective, **settings: Any) -> tuple[Trial, list[Trial]]:
    trials: list[Trial] = []
    return minimise(objective, Pho(**settings), evaluated=trials.append), trials


def climb_trials(objective: Objective, **settings: Any) -> tuple[Trial, list[Trial]]:
    trials: list[Trial] = []
    return climb(objective, HillClimb(**settings), evaluated=trials.append), trials


@pytest.mark.parametrize("seed", range(5))
def test_cma_es_finds_the_lowest_point(seed: int) -> None:
    best, trials = pho_trials(bowl, seed=seed)
    assert (best.g, best.b) == pytest.approx((0.6, 0.3), abs=0.1)
    assert best.kernel == 9
    assert best == min(trials, key=lambda trial: trial.value)
    assert bowl(best.g, best.b, best.kernel) == best.value


def test_cma_es_keeps_to_box_and_budget() -> None:
    _, trials = pho_trials(lambda g, b, kernel: -g - b - kernel / 65, generations=12, population=5)
    assert len(trials) == 1 + 12 * 5
    assert all(0 <= trial.g <= 1 and 0 <= trial.b <= 1 and trial.kernel in GRID for trial in trials)
    assert max(trial.g for trial in trials) > 0.9


def test_the_same_seed_finds_the_same() -> None:
    assert pho_trials(bowl, seed=4) == pho_trials(bowl, seed=4)
    assert pho_trials(bowl, seed=4) != pho_trials(bowl, seed=5)


@pytest.mark.parametrize("population", [4, 30])
def test_an_objective_without_slope_ends_with_ria(population: int) -> None:
    best, trials = pho_trials(lambda *_: 1.0, generations=60, population=population)
    assert (best.g, best.b, best.kernel) == RIA
    assert len(trials) <= 1 + 60 * population


@pytest.mark.parametrize("run", [pho_trials, climb_trials])
def test_ria_is_the_first_candidate_and_stays_unless_beaten(run: Any) -> None:
    best, trials = run(ria_is_best)
    assert (trials[0].g, trials[0].b, trials[0].kernel) == RIA
    assert best == trials[0]


def test_the_proxy_can_be_minimised() -> None:
    made = proxy(matrices())
    best, trials = pho_trials(made.objective, generations=5)
    assert best.value == min(trial.value for trial in trials) <= made.objective(*RIA)


def test_the_climb_reaches_the_lowest_point() -> None:
    best, trials = climb_trials(bowl)
    assert (best.g, best.b) == pytest.approx((0.6, 0.3), abs=0.0625 / 2)
    assert best.kernel == 9
    assert best == min(trials, key=lambda trial: trial.value)
    assert len(trials) < 60


def test_the_climb_reaches_a_corner() -> None:
    best, _ = climb_trials(lambda g, b, kernel: -g - b - kernel)
    assert (best.g, best.kernel) == (1, 65)


def test_the_climb_follows_every_kind_of_move() -> None:
    path = [RIA, (0.25, 0.5, 3), (0.25, 0.5, 5), (0.25, 0.5, 7), (0.25, 0.25, 7), (0.25, 0, 7)]
    path += [(0.25, 0, 5), (0.5, 0, 5), (0.5, 0, 3), (0.5, 0.125, 3), (0.375, 0.125, 3)]
    values = {point: -step for step, point in enumerate(path)}
    best, _ = climb_trials(lambda *point: values.get(point, 1))
    assert (best.g, best.b, best.kernel) == path[-1]


@pytest.mark.parametrize("budget", [1, 2, 7, 20])
def test_the_climb_keeps_to_its_budget(budget: int) -> None:
    best, trials = climb_trials(bowl, evaluations=budget)
    assert len(trials) == budget
    assert best == min(trials, key=lambda trial: trial.value)


@given(st.integers(0, 2**32 - 1))
def test_the_climb_never_tries_a_mask_twice(seed: int) -> None:
    draw = np.random.default_rng(seed)
    best, trials = climb_trials(lambda *_: float(draw.random()))
    coefficient_sets = [
        (*coefficients(trial.g, trial.b), trial.kernel if trial.g else None) for trial in trials
    ]
    assert len(set(coefficient_sets)) == len(trials)
    assert all(0 <= trial.g <= 1 and 0 <= trial.b <= 1 and trial.kernel in GRID for trial in trials)
    assert best == min(trials, key=lambda trial: trial.value)
