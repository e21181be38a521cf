"""Least squares for read-outs: never worse than slicing, and what both streams give is what a direct sum gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import NumericalFailure
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics import least_squares
from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.least_squares import RIDGES, Moments, fit, held_out_ridge, relative_error
from pruning_core.prune.dense_targets import DenseTargets, cross_moments, narrower
from tests import tiny
from tests.examples import examples
from tests.pruning_core.runs import save_with_biases

INPUTS, OUTPUTS = 12, 5
KEPT = torch.tensor([0, 2, 3, 5, 8, 9, 11])
LOST = torch.tensor([1, 4, 6, 7, 10])
CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Float32 sums in another order."""


@dataclass(frozen=True)
class Problem:
    """A matrix, its inputs on the pruned path, and the outputs that are wanted, [tokens, ...] float64."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    x: torch.Tensor
    y: torch.Tensor

    @property
    def moments(self) -> Moments:
        count = len(self.x)
        found = (
            self.x.T @ self.x / count,
            self.x.mean(dim=0),
            self.y.T @ self.x / count,
            self.y.mean(dim=0),
            self.y.square().mean(dim=0),
        )
        return Moments(*(one.float() for one in found), tokens=count)

    def loss(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> float:
        """Return the mean square error of all outputs, computed from the tokens themselves."""
        offset = 0 if bias is None else bias.double()
        return float((self.x @ weight.double().T + offset - self.y).square().mean())

    @property
    def sliced(self) -> torch.Tensor:
        weight = torch.zeros_like(self.weight)
        weight[:, KEPT] = self.weight[:, KEPT]
        return weight


def problem(seed: int = 0, tokens: int = 200, *, bias: bool = False, noise: float = 0.3) -> Problem:
    """Correlated inputs with means; targets that the matrix itself meets only about."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = normal(tokens, INPUTS) @ normal(INPUTS, INPUTS) / 3 + normal(INPUTS)
    weight = normal(OUTPUTS, INPUTS).float()
    offset = normal(OUTPUTS).float() if bias else None
    y = x @ weight.double().T + (0 if offset is None else offset.double())
    return Problem(weight, offset, x, y + noise * normal(tokens, OUTPUTS))


def seen(one: Problem, held: Stats | None = None) -> Stats:
    """Return the statistics of a problem's inputs."""
    found = one.moments
    return Stats(tokens=len(one.x), gram=found.gram, column_mean=found.mean, held=held)


def parted(one: Problem) -> tuple[Problem, Problem]:
    """Return the first four fifths of the tokens, and the rest."""
    at = len(one.x) * 4 // 5
    return (
        Problem(one.weight, one.bias, one.x[:at], one.y[:at]),
        Problem(one.weight, one.bias, one.x[at:], one.y[at:]),
    )


@given(
    seed=st.integers(0, 2**31),
    tokens=st.sampled_from([3, 8, 40, 300]),
    ridge=st.one_of(st.just(0.0), st.floats(1e-6, 1000)),
    bias=st.booleans(),
)
@settings(deadline=None, max_examples=examples(60))
def test_no_ridge_makes_the_fit_worse_than_slicing(
    seed: int, tokens: int, ridge: float, bias: bool
) -> None:
    one = problem(seed, tokens, bias=bias)
    fitted, offset = fit(one.weight, one.bias, one.moments, KEPT, ridge)
    assert not fitted[:, LOST].any()
    assert (offset is None) == (one.bias is None)
    # float32 moments, of fewer tokens than inputs nearly singular
    bound = one.loss(one.sliced, one.bias)
    assert one.loss(fitted, offset) <= bound * (1 + 1e-4) + 1e-5


def test_a_fit_gains_much_where_inputs_are_correlated() -> None:
    one = problem(noise=0)
    fitted, _ = fit(one.weight, None, one.moments, KEPT, 0.001)
    assert one.loss(fitted) < 0.7 * one.loss(one.sliced)


@pytest.mark.parametrize("bias", [False, True])
def test_without_ridge_it_is_numpy_s_least_squares(bias: bool) -> None:
    one = problem(bias=bias)
    fitted, offset = fit(one.weight, one.bias, one.moments, KEPT, 0)
    x = one.x[:, KEPT].numpy()
    if bias:
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    expected = np.linalg.lstsq(x, one.y.numpy(), rcond=None)[0].T
    np.testing.assert_allclose(fitted[:, KEPT], expected[:, : len(KEPT)], rtol=1e-3, atol=1e-3)
    if offset is not None:
        np.testing.assert_allclose(offset, expected[:, -1], rtol=1e-3, atol=1e-3)


def test_without_ridge_and_bias_it_is_the_formula_of_the_paper() -> None:
    one = problem()
    own = Moments.of_same_path(one.weight, None, seen(one))
    fitted, _ = fit(one.weight, None, own, KEPT, 0)
    gram = one.moments.gram.double().numpy()
    inverse = np.linalg.inv(gram[np.ix_(KEPT, KEPT)])
    expected = one.weight.double().numpy() @ gram[:, KEPT] @ inverse
    np.testing.assert_allclose(fitted[:, KEPT], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bias", [False, True])
def test_a_huge_ridge_slices(bias: bool) -> None:
    one = problem(bias=bias)
    distances = [
        float((fit(one.weight, one.bias, one.moments, KEPT, ridge)[0] - one.sliced).norm())
        for ridge in (0.01, 1, 100, 1e7)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-5


def test_a_ridge_is_a_share_of_the_mean_diagonal() -> None:
    """The formula itself, and so that larger inputs change nothing."""
    one = problem()
    gram = one.moments.gram[KEPT][:, KEPT].double()
    damped = gram + 0.5 * gram.diagonal().mean() * torch.eye(len(KEPT))
    residual = one.moments.cross[:, KEPT].double() - one.weight[:, KEPT].double() @ gram
    expected = one.weight[:, KEPT] + residual @ torch.linalg.inv(damped)
    fitted, _ = fit(one.weight, None, one.moments, KEPT, 0.5)
    torch.testing.assert_close(fitted[:, KEPT], expected.float(), **CLOSE)
    larger = Problem(one.weight, None, one.x * 8, one.y * 8)
    again, _ = fit(one.weight, None, larger.moments, KEPT, 0.5)
    torch.testing.assert_close(again, fitted, **CLOSE)


def test_inputs_that_say_nothing_of_each_other_change_nothing() -> None:
    one = problem()
    diagonal = torch.diag(torch.linspace(0.5, 3, INPUTS))
    stats = Stats(tokens=1, gram=diagonal, column_mean=torch.zeros(INPUTS))
    own = Moments.of_same_path(one.weight, None, stats)
    fitted, _ = fit(one.weight, None, own, KEPT, 0.01)
    torch.testing.assert_close(fitted, one.sliced)


def test_nothing_that_goes_and_own_outputs_change_nothing() -> None:
    one = problem(bias=True, noise=0)
    fitted, offset = fit(one.weight, one.bias, one.moments, None, 0.01)
    torch.testing.assert_close(fitted, one.weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(offset, one.bias, rtol=1e-3, atol=1e-2)


def test_a_bias_takes_up_the_mean_of_what_goes_as_flap_s_does() -> None:
    one = problem(bias=True, noise=0)
    assert one.bias is not None
    flap = one.bias + one.weight[:, LOST] @ one.moments.mean[LOST]
    _, sliced = fit(one.weight, one.bias, one.moments, KEPT, 1e9)
    torch.testing.assert_close(sliced, flap, **CLOSE)
    fitted, offset = fit(one.weight, one.bias, one.moments, KEPT, 0.01)
    none, moved = one.loss(one.sliced, one.bias), one.loss(one.sliced, flap)
    assert one.loss(fitted, offset) < moved < none


@pytest.mark.parametrize("bias", [False, True])
def test_the_relative_error_is_that_of_the_outputs(bias: bool) -> None:
    one = problem(bias=bias)
    fitted, offset = fit(one.weight, one.bias, one.moments, KEPT, 0.01)
    expected = (one.loss(fitted, offset) / float(one.y.square().mean())) ** 0.5
    assert relative_error(fitted, offset, one.moments) == pytest.approx(expected, rel=1e-3)


def test_there_is_no_relative_error_where_nothing_is_wanted() -> None:
    zeros = torch.zeros(4, 4)
    moments = Moments(torch.eye(4), zeros[0], zeros, zeros[0], zeros[0])
    assert relative_error(zeros, None, moments) is None


@pytest.mark.parametrize("bias", [False, True])
def test_a_matrix_s_own_outputs_have_the_moments_of_a_direct_sum(bias: bool) -> None:
    one = problem(bias=bias, noise=0)
    found = Moments.of_same_path(one.weight, one.bias, seen(one))
    for name in ("gram", "mean", "cross", "wanted", "square"):
        torch.testing.assert_close(
            getattr(found, name), getattr(one.moments, name), rtol=1e-4, atol=1e-4
        )


@given(
    seed=st.integers(0, 2**31),
    tokens=st.sampled_from([10, 20, 300]),
    noise=st.sampled_from([0.01, 1.0, 10.0]),
    bias=st.booleans(),
)
@settings(deadline=None, max_examples=examples(30))
def test_a_ridge_is_found_by_fits_to_the_other_tokens(
    seed: int, tokens: int, noise: float, bias: bool
) -> None:
    one = problem(seed, tokens, bias=bias, noise=noise)
    others, held = parted(one)
    moments = replace(one.moments, held=held.moments)
    for name in ("gram", "mean", "cross", "wanted"):
        found, expected = getattr(moments.without_held(), name), getattr(others.moments, name)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    losses = {
        ridge: held.loss(*fit(one.weight, one.bias, others.moments, KEPT, ridge))
        for ridge in RIDGES
    }
    found = held_out_ridge(one.weight, one.bias, moments, KEPT)
    assert losses[found] <= min(losses.values()) * (1 + 1e-3)


def test_noise_asks_for_a_larger_ridge() -> None:
    found = []
    for tokens, noise in ((20, 10.0), (2000, 0.1)):
        one = problem(1, tokens, noise=noise)
        moments = replace(one.moments, held=parted(one)[1].moments)
        found.append(held_out_ridge(one.weight, None, moments, KEPT))
    assert found == [RIDGES[0], RIDGES[-1]]


def test_a_matrix_s_own_outputs_are_held_out_with_its_inputs() -> None:
    one = problem(bias=True, noise=0)
    held = parted(one)[1]
    found = Moments.of_same_path(one.weight, one.bias, seen(one, seen(held))).held
    assert found is not None
    assert found.tokens == len(held.x)
    torch.testing.assert_close(found.cross, held.moments.cross, rtol=1e-4, atol=1e-4)


def test_some_outputs_decide_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second one here; the noise is in the others, which would ask for a large ridge."""
    monkeypatch.setattr(least_squares, "JUDGED", 3)
    one = problem(1, 40, noise=0.01)
    one.y[:, 1::2] += 100 * torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    moments = replace(one.moments, held=parted(one)[1].moments)
    found = held_out_ridge(one.weight, None, moments, KEPT)
    monkeypatch.setattr(least_squares, "JUDGED", 5)
    assert found < held_out_ridge(one.weight, None, moments, KEPT)


def test_where_nothing_is_held_out_the_largest_ridge_is_taken() -> None:
    one = problem()
    none = replace(one.moments, tokens=0)
    for moments in (one.moments, replace(one.moments, held=none)):
        assert held_out_ridge(one.weight, None, moments, KEPT) == max(RIDGES)


@pytest.mark.parametrize("x", [torch.zeros(40, INPUTS), torch.ones(40, INPUTS)], ids=["0", "1"])
@pytest.mark.parametrize("ridge", [0.0, 0.01])
@pytest.mark.parametrize("bias", [False, True])
def test_dull_inputs_give_finite_weights(x: torch.Tensor, ridge: float, bias: bool) -> None:
    one = problem(bias=bias)
    offset = 0 if one.bias is None else one.bias.double()
    dull = Problem(one.weight, one.bias, x.double(), x.double() @ one.weight.double().T + offset)
    fitted, found = fit(one.weight, one.bias, dull.moments, KEPT, ridge)
    assert torch.isfinite(fitted).all()
    assert dull.loss(fitted, found) <= dull.loss(one.sliced, one.bias) * (1 + 1e-4) + 1e-5


# Both streams


def folder(tmp_path: Path, model_type: str, changes: dict[str, Any]) -> Path:
    return save_with_biases(tmp_path / "m", model_type, **changes)


def input_of(module: Any) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    module.register_forward_pre_hook(lambda _module, args: seen.append(args[0].flatten(0, -2)))
    return seen


def change(group: InputGroup) -> None:
    """Make a matrix another one, so that the streams part."""
    generator = torch.Generator().manual_seed(3)
    for matrix in group.matrices:
        matrix.view.mul_(torch.rand(matrix.shape, generator=generator))


def of_windows(tokens: torch.Tensor, part: slice) -> torch.Tensor:
    """Return a part of every window of 16, of [tokens, width]."""
    return tokens.unflatten(0, (-1, 16))[:, part].flatten(0, 1)


NARROW = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
BLOCKS: list[tuple[str, dict[str, Any], list[bool]]] = [
    ("llama", {}, [False, True, False, True]),
    ("opt", {}, [False, True, False, True]),
    ("gpt2", {}, [False, True, False, True]),
    ("phi3", {}, [False, True, False, True]),
    ("qwen3", NARROW, [True, False, False, True]),
    ("qwen2", NARROW, [True, False, False, True]),
]


@pytest.mark.parametrize(("model_type", "changes", "narrow"), BLOCKS, ids=lambda value: str(value))
def test_both_streams_give_the_moments_of_a_direct_sum(
    model_type: str, changes: dict[str, Any], narrow: list[bool], tmp_path: Path
) -> None:
    source = folder(tmp_path, model_type, changes)
    model = StreamedModel(source, inspect(source), CPU)
    ids = tiny.tokens(5, 16)
    with torch.no_grad(), model.block(0) as block:
        dense, pruned = (Activations(model, ids, batch_tokens=32) for _ in range(2))
        pruned.hidden = [hidden + 0.2 * hidden.sin() for hidden in pruned.hidden]
        groups = input_groups(block, model.family, model.config)
        assert [narrower(group) for group in groups] == narrow
        wanted = [input_of(group.first) for group in groups]
        targets = DenseTargets.of(0, block, groups, dense)
        weights = {m.name: m.read() for group in groups for m in group.matrices}
        biases = {
            m.name: 0 if m.bias is None else m.bias.clone()
            for group in groups
            for m in group.matrices
        }
        inputs = [torch.cat(parts) for parts in wanted]
        for number, group in enumerate(groups):
            wanted[number].clear()
            found = cross_moments(0, block, group, pruned, targets.pop(group), {"held"})
            x = torch.cat(wanted[number])
            assert not torch.allclose(x, inputs[number])
            assert found.stats.tokens == len(x) == ids.numel()
            for matrix in group.matrices:
                moments = found.moments(group, matrix, targets.weights[matrix.name])
                y = inputs[number] @ weights[matrix.name].T + biases[matrix.name]
                one = Problem(weights[matrix.name], None, x.double(), y.double())
                judged = narrow[number] or len(group.matrices) == 1  # all read-outs are alone
                assert (moments.square is not None) == judged
                for name in ("gram", "mean", "cross", "wanted", "square"):
                    if getattr(moments, name) is not None:
                        torch.testing.assert_close(
                            getattr(moments, name), getattr(one.moments, name), rtol=1e-4, atol=1e-4
                        )
                assert moments.held is not None
                late = slice(13, 16)  # the last fifth of each window
                held = Problem(one.weight, None, *(of_windows(z, late) for z in (one.x, one.y)))
                assert moments.held.tokens == 5 * 3
                for name in ("gram", "mean", "cross", "wanted"):
                    torch.testing.assert_close(
                        getattr(moments.held, name),
                        getattr(held.moments, name),
                        rtol=1e-4,
                        atol=1e-4,
                    )
            change(group)  # as pruning does: the next group's inputs are those behind it


def test_the_dense_stream_goes_on_over_the_dense_block(tmp_path: Path) -> None:
    source = folder(tmp_path, "llama", {})
    model = StreamedModel(source, inspect(source), CPU)
    with torch.no_grad(), model.block(0) as block:
        one, other = (Activations(model, tiny.tokens(2, 16)) for _ in range(2))
        DenseTargets.of(0, block, input_groups(block, model.family, model.config), one)
        other.advance(0, block)
    assert torch.equal(one.hidden[0], other.hidden[0])


@pytest.mark.parametrize("spoil", [lambda h: h / 0, lambda h: h * torch.nan], ids=["inf", "nan"])
def test_an_input_that_is_not_finite_is_an_error_that_names_it(
    spoil: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    source = folder(tmp_path, "llama", {})
    model = StreamedModel(source, inspect(source), CPU)
    with torch.no_grad(), model.block(0) as block:
        dense, pruned = (Activations(model, tiny.tokens(2, 16)) for _ in range(2))
        groups = input_groups(block, model.family, model.config)
        targets = DenseTargets.of(0, block, groups, dense)
        pruned.hidden = [spoil(hidden) for hidden in pruned.hidden]
        with pytest.raises(
            NumericalFailure, match=r"block 0, self_attn\.q_proj: \w+ of its input is NaN"
        ):
            cross_moments(0, block, groups[0], pruned, targets.pop(groups[0]))
