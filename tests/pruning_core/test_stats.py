"""Statistics of an input against NumPy over all its tokens at once, whatever the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import NumericalFailure
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import (
    SKETCH_ROWS,
    STATISTICS,
    Collector,
    Stats,
    held_out,
)
from pruning_core.numerics.linear_algebra import all_finite, damped_cholesky, damping, smallest
from pruning_core.prune.matrix import output_error
from pruning_core.prune.walk import observe
from tests import tiny

Array = npt.NDArray[np.float64]
CPU = torch.device("cpu")
widths = st.integers(1, 40)
seeds = st.integers(0, 2**31)


def random_inputs(tokens: int, width: int, seed: int, *, shift: float = 2.0) -> torch.Tensor:
    """Inputs with means, scales and correlations."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(width, generator=generator) * 3 + 0.1
    mixed = torch.randn(tokens, width, generator=generator) @ torch.randn(
        width, width, generator=generator
    )
    return mixed / width**0.5 * scale + shift * torch.randn(width, generator=generator)


def collected(batches: list[torch.Tensor], *needs: str) -> Stats:
    collector = Collector(needs or STATISTICS, batches[0].shape[-1], torch.device("cpu"))
    for batch in batches:
        collector.update(batch)
    return collector.stats("test")


@pytest.mark.parametrize(
    ("shape", "held"),
    [
        ((11, 6, 1), [*range(24, 30), *range(54, 60)]),
        ((3, 6, 1), [5, 11, 17]),
        ((13, 1), [11, 12]),
        ((4, 1), []),
    ],
    ids=["samples", "few samples", "tokens of an expert", "few tokens"],
)
def test_a_fifth_is_held_out(shape: tuple[int, ...], held: list[int]) -> None:
    x = torch.arange(float(np.prod(shape))).view(shape)
    assert held_out(x).flatten().tolist() == held
    found = collected([x, x + 100], "gram", "held").held
    assert found is not None
    both = torch.tensor([*held, *(one + 100 for one in held)], dtype=torch.float64)
    assert found.tokens == len(both)
    if len(both):
        assert float(found.gram) == pytest.approx(float(both.square().mean()))  # type: ignore[arg-type]
        assert float(found.column_mean) == pytest.approx(float(both.mean()))  # type: ignore[arg-type]


def exact(inputs: torch.Tensor) -> Array:
    return inputs.reshape(-1, inputs.shape[-1]).double().numpy()


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), width=widths, seed=seeds)
@settings(deadline=None)
def test_running_means_over_uneven_batches_are_those_of_all_tokens(
    sizes: list[int], width: int, seed: int
) -> None:
    inputs = random_inputs(sum(sizes), width, seed)
    found = collected(list(torch.split(inputs, sizes)))
    x = exact(inputs)
    expected = {
        "column_mean": x.mean(axis=0),
        "column_variance": x.var(axis=0),
        "column_mean_square": (x**2).mean(axis=0),
        "column_mean_abs": np.abs(x).mean(axis=0),
        "gram": x.T @ x / len(x),
    }
    scale = np.abs(x).max() ** 2
    assert found.tokens == sum(sizes)
    for name, value in expected.items():
        np.testing.assert_allclose(
            getattr(found, name).numpy(), value, rtol=1e-4, atol=1e-6 * scale
        )


@pytest.mark.parametrize("width", [1, 191, 192, 385, 577, 1000, 1537])
def test_the_gram_matrix_is_whole_and_symmetric_at_any_width(width: int) -> None:
    inputs = random_inputs(300, width, 0)
    gram = collected([inputs[:7], inputs[7:]], "gram").gram
    assert gram is not None
    assert torch.equal(gram, gram.T)
    x = exact(inputs)
    np.testing.assert_allclose(gram.numpy(), x.T @ x / 300, rtol=1e-4, atol=1e-4)


def test_a_variance_far_from_zero_is_not_lost_to_rounding() -> None:
    inputs = random_inputs(400, 8, 1, shift=0.0) + 1000
    found = collected(list(torch.split(inputs, 33)), "column_variance").column_variance
    assert found is not None
    np.testing.assert_allclose(found.numpy(), exact(inputs).var(axis=0), rtol=2e-3)


def test_inputs_of_any_leading_shape_and_dtype_count_by_token() -> None:
    inputs = random_inputs(24, 6, 2).reshape(2, 12, 6)
    half = collected([inputs.bfloat16()])
    assert half.tokens == 24
    assert half.gram is not None
    assert half.gram.dtype == torch.float32
    x = exact(inputs.bfloat16().float())
    np.testing.assert_allclose(half.gram.numpy(), x.T @ x / 24, rtol=1e-4, atol=1e-4)


def test_the_window_is_the_text_s_and_not_that_of_a_batch(tmp_path: Path) -> None:
    """Experts see a few tokens of many windows."""
    folder = tiny.save(tmp_path / "model", "mixtral")
    model = StreamedModel(folder, inspect(folder), CPU)
    windows: set[int] = set()
    with torch.no_grad():
        states = Activations(model, tiny.tokens(4, 24))
        observe(
            model,
            states,
            ["column_mean"],
            lambda _index, inputs: windows.update(stats.window for _, stats in inputs),
            lambda _index: None,
        )
    assert windows == {24}


def test_no_tokens_give_zeros_that_call_their_input_dead() -> None:
    found = collected([torch.zeros(0, 5)])
    assert found.tokens == 0
    assert found.dead_input
    assert all(not getattr(found, name).any() for name in STATISTICS)


@pytest.mark.parametrize("needs", [("gram",), ("column_mean_square", "sketch")])
def test_an_input_of_zeros_is_dead_and_one_token_is_not(needs: tuple[str, ...]) -> None:
    zeros = torch.zeros(9, 5)
    dead = collected([zeros], *needs)
    assert dead.dead_input
    assert dead.usable().root_mean_square.tolist() == [1] * 5
    assert dead.usable().dead_input
    zeros[8, 3] = 1e-3
    stats = collected([zeros], *needs)
    assert not stats.dead_input
    assert stats.usable() is stats


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_an_error_that_names_the_input(name: str, bad: float) -> None:
    inputs = torch.ones(9, 5)
    inputs[4, 2] = bad
    with pytest.raises(NumericalFailure, match=rf"test: {name} of its input"):
        collected([inputs], name)


# The sketch


def changed(inputs: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return a weight, a changed one, and the exact relative error of the output."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(8, inputs.shape[1], generator=generator)
    pruned = dense * (torch.rand(dense.shape, generator=generator) > 0.5)
    x, w, z = exact(inputs), dense.double().numpy(), pruned.double().numpy()
    return dense, pruned, float(np.linalg.norm(x @ (z - w).T) / np.linalg.norm(x @ w.T))


@pytest.mark.parametrize("tokens", [1, 100, 3000])
@pytest.mark.parametrize("seed", range(4))
def test_the_sketch_estimates_the_output_error(tokens: int, seed: int) -> None:
    inputs = random_inputs(tokens, 20, seed)
    dense, pruned, expected = changed(inputs, seed)
    batches = list(torch.split(inputs, 333))
    by_sketch = output_error(dense, pruned, collected(batches, "sketch"))
    by_gram = output_error(dense, pruned, collected(batches, "gram"))
    assert by_sketch == pytest.approx(expected, rel=0.25)
    assert by_gram == pytest.approx(expected, rel=1e-3)


def test_no_more_tokens_than_rows_are_not_estimated_but_exact() -> None:
    """Every token has a row of its own."""
    inputs = random_inputs(SKETCH_ROWS, 20, 5)
    dense, pruned, expected = changed(inputs, 5)
    found = output_error(dense, pruned, collected([inputs], "sketch"))
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_sketch_is_unbiased() -> None:
    """The mean of |S d|^2 over many inputs comes to that of |X d|^2, which a sign or scale amiss would miss."""
    ratios = []
    for seed in range(150):
        inputs = random_inputs(1000, 3, seed, shift=0.0)
        sketch = collected([inputs], "sketch").sketch
        assert sketch is not None
        ratios.append(float(sketch.double().square().sum() / inputs.double().square().sum()))
    assert np.mean(ratios) == pytest.approx(1, abs=0.02)


def test_a_shared_direction_does_not_bias_the_sketch() -> None:
    """All tokens alike: without random signs a row's sum would grow with its number of tokens."""
    sketch = collected([torch.ones(5000, 4)], "sketch").sketch
    assert sketch is not None
    assert float(sketch[:, 0].square().sum()) == pytest.approx(5000, rel=0.3)


def test_without_statistics_or_output_there_is_no_error_to_report() -> None:
    weight = torch.ones(2, 5)
    assert output_error(weight, weight, Stats(tokens=0)) is None
    assert output_error(weight, weight, collected([torch.zeros(9, 5)], "gram")) is None


# What is made of statistics


def test_permuted_statistics_are_those_of_the_permuted_input() -> None:
    inputs = random_inputs(50, 12, 6)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved, expected = collected([inputs]).permuted(order), collected([inputs[:, order]])
    for name in STATISTICS:
        torch.testing.assert_close(
            getattr(moved, name), getattr(expected, name), rtol=1e-4, atol=1e-5
        )
    assert (moved.tokens, moved.window) == (expected.tokens, expected.window)
    assert collected([inputs], "gram").permuted(order).column_mean is None


def test_a_unit_input_is_that_of_independent_standard_channels() -> None:
    unit = collected([torch.zeros(9, 5)]).with_unit_input()
    assert unit.tokens == 0
    assert unit.gram is not None
    assert torch.equal(unit.gram, torch.eye(5))
    assert output_error(torch.ones(2, 5), torch.zeros(2, 5), unit) is None
    ones = ("column_mean_square", "column_variance", "column_mean_abs")
    for name, value in (("column_mean", 0), *((name, 1) for name in ones)):
        assert getattr(unit, name).tolist() == [value] * 5
    assert unit.sketch is None
    assert collected([torch.zeros(9, 5)], "gram").with_unit_input().column_mean is None


def test_what_is_made_once_is_made_once_per_key_and_never_for_another_input() -> None:
    stats, calls = collected([random_inputs(9, 5, 7)]), []

    def make(key: object) -> object:
        return stats.once(key, lambda: calls.append(key) or object())

    assert make("a") is make("a")
    assert make("b") is not make("a")
    assert calls == ["a", "b"]
    for other in (stats.permuted(torch.arange(5)), stats.with_unit_input()):
        assert other.once("a", lambda: None) is None
    assert collected([random_inputs(9, 5, 7)]).once("a", lambda: None) is None


# Numerics


def test_damping_is_a_share_of_the_mean_diagonal_and_one_where_that_is_zero() -> None:
    assert damping(torch.diag(torch.tensor([1.0, 3.0])), 0.01) == pytest.approx(0.02)
    assert damping(torch.zeros(3, 3), 0.01) == 1


@pytest.mark.parametrize(("lowest", "factor"), [(1.0, 1), (-0.05, 10), (-0.5, 100), (-5.0, 1000)])
def test_a_factorisation_that_fails_is_damped_more(lowest: float, factor: int) -> None:
    matrix = torch.diag(torch.tensor([1.0, lowest]))
    lower = damped_cholesky(matrix, 0.01)
    torch.testing.assert_close(lower @ lower.T, matrix + 0.01 * factor * torch.eye(2))


def test_a_factorisation_that_no_damping_saves_is_an_error() -> None:
    with pytest.raises(NumericalFailure, match="not positive definite even with damping 10"):
        damped_cholesky(-torch.diag(torch.tensor([100.0, 1.0])), 0.01)


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 20)),
    count=st.integers(0, 20),
    levels=st.integers(1, 5),
    seed=seeds,
)
def test_the_smallest_are_those_of_a_stable_sort(
    shape: tuple[int, int], count: int, levels: int, seed: int
) -> None:
    groups = torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed)).float()
    count = min(count, shape[1])
    expected = np.zeros(shape, dtype=bool)
    order = np.argsort(groups.numpy(), axis=1, kind="stable")[:, :count]
    np.put_along_axis(expected, order, values=True, axis=1)
    assert (smallest(groups, count).numpy() == expected).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_seen(bad: float) -> None:
    values = torch.zeros(5, 7)
    assert all_finite(values)
    assert all_finite(torch.zeros(0, 7))
    values[3, 6] = bad
    assert not all_finite(values)
