"""Block reconstruction: what it may change, what it never makes worse, and that it helps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import DatasetTooSmall
from pruning_core.model.block_calls import Call, run
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.phases import prune
from pruning_core.prune.block_reconstruction import Sample, reconstruct
from pruning_core.selection.masks import Selector
from pruning_core.spec.composition import Reconstruction
from pruning_core.spec.patterns import Row
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report_parts.removal import ReconstructionReport
from tests import tiny

NOTHING = Call((), {})


def quiet() -> None:
    """Nobody listens."""


class Problem:
    """A small block of two matrices, magnitude-pruned, and inputs of windows of 12 tokens."""

    def __init__(
        self, windows: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        torch.manual_seed(seed)
        self.dense = nn.Sequential(
            nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 16)
        )
        self.dense.to(dtype).requires_grad_(False)
        self.block = copy.deepcopy(self.dense)
        self.weights = [self.block[0].weight, self.block[3].weight]
        for weight in self.weights:
            weight.data *= Selector(0.6, Row()).keep_mask(weight.data.float().abs())
        inputs = torch.randn(windows, 1, 12, 16).to(dtype)
        self.samples = [Sample(hidden, NOTHING, self.dense(hidden)) for hidden in inputs]

    def train(self, alive: Callable[[], None] = quiet, **params: Any) -> ReconstructionReport:
        fields: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 5} | params
        stored = [weight.dtype for weight in self.weights]
        wanted = Reconstruction(**fields)
        return reconstruct(self.block, self.weights, stored, self.samples, wanted, alive)

    def error(self, samples: list[Sample]) -> float:
        with torch.no_grad():
            errors = [(self.block(s.hidden) - s.target).float().square().mean() for s in samples]
        return float(sum(errors) / len(errors))

    def state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.block.state_dict().items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("seed", range(3))
def test_it_lowers_the_error_on_windows_it_never_saw(seed: int) -> None:
    problem = Problem(seed=seed)
    held_out = problem.samples[7::8]
    before = problem.error(held_out)
    report = problem.train()
    assert report.steps == 5 * 7
    assert report.loss_before == pytest.approx(before, rel=1e-5)
    assert report.loss_after == pytest.approx(problem.error(held_out), rel=1e-5)
    assert report.loss_after < 0.85 * before


def test_zeros_stay_and_only_the_given_weights_move() -> None:
    problem = Problem()
    before = problem.state()
    problem.train()
    after = problem.state()
    for name in ("0.weight", "3.weight"):
        assert torch.equal(after[name] == 0, before[name] == 0)
        assert not torch.equal(after[name], before[name])
        del before[name], after[name]
    assert equal(before, after)
    assert not any(parameter.requires_grad for parameter in problem.block.parameters())


@pytest.mark.parametrize("learning_rate", [1e-5, 1e-2, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_held_out_error_is_never_above_the_start(learning_rate: float, seed: int) -> None:
    problem = Problem(seed=seed, windows=6)
    before = problem.error(problem.samples[-1:])
    report = problem.train(learning_rate=learning_rate, epochs=2)
    assert report.loss_after <= report.loss_before
    assert problem.error(problem.samples[-1:]) <= before * (1 + 1e-6)


def test_a_rate_that_ruins_everything_leaves_the_start_bit_by_bit() -> None:
    problem = Problem()
    before = problem.state()
    report = problem.train(learning_rate=1.0, epochs=1)
    assert report.loss_after == report.loss_before
    assert equal(problem.state(), before)


def test_a_rate_of_zero_is_the_identity_bit_by_bit() -> None:
    problem = Problem()
    before = problem.state()
    report = problem.train(learning_rate=0)
    assert report.loss_after == report.loss_before
    assert equal(problem.state(), before)


def test_the_same_twice_is_the_same_bit_by_bit() -> None:
    problems = [Problem(), Problem()]
    reports = [problem.train() for problem in problems]
    assert reports[0] == reports[1]
    assert equal(problems[0].state(), problems[1].state())


@pytest.mark.parametrize(
    ("windows", "params", "steps"),
    [
        (16, {"epochs": 1}, 7),
        (16, {"epochs": 3, "batch": 4}, 12),
        (16, {"epochs": 1, "batch": 1000}, 1),
        (16, {"epochs": 1, "held_out": 0.5}, 4),
        (2, {"epochs": 1, "held_out": 0.01}, 1),
    ],
)
def test_steps_are_epochs_of_batches_of_what_is_not_held_out(
    windows: int, params: dict[str, Any], steps: int
) -> None:
    calls: list[int] = []
    problem = Problem(windows)
    report = problem.train(lambda: calls.append(1), **params)
    assert report.steps == steps == len(calls)


def test_every_training_window_is_used_and_no_held_out_one() -> None:
    """What is held out, every eighth, decides what is kept, but moves no weight."""
    plain, other = Problem(), Problem()
    other.samples[-1] = Sample(other.samples[-1].hidden, NOTHING, other.samples[-1].target + 1e-3)
    plain.train(epochs=1)
    other.train(epochs=1)
    assert equal(plain.state(), other.state())
    for position in (0, 13):
        other = Problem()
        other.samples[position] = other.samples[3]
        other.train(epochs=1)
        assert not equal(plain.state(), other.state())


def test_a_16_bit_block_is_trained_in_float32() -> None:
    """A rate of 1e-5 would vanish in bfloat16 after every step."""
    problem = Problem(dtype=torch.bfloat16)
    report = problem.train(learning_rate=1e-4, epochs=10)
    assert report.loss_after < report.loss_before
    assert {tensor.dtype for tensor in problem.state().values()} == {torch.bfloat16}
    for weight in problem.weights:
        assert weight.dtype == torch.bfloat16


def test_it_lowers_the_error_of_a_real_block(tmp_path: Path) -> None:
    """Attention, rotary embeddings, masks: whatever a block is called with is replayed."""
    folder = tiny.save(tmp_path / "m", "llama")
    model = StreamedModel(folder, inspect(folder), torch.device("cpu"))
    with torch.no_grad():
        states = Activations(model, tiny.tokens(12, 24), batch_tokens=1)
        with model.block(0) as block:
            samples = [
                Sample(hidden, call, run(block, hidden, call)) for hidden, call in states.inputs(0)
            ]
            groups = input_groups(block, model.family, model.config)
            matrices = [matrix for group in groups for matrix in group.matrices]
            for matrix in matrices:
                weight = matrix.read()
                matrix.write(
                    weight * Selector(0.5, Row()).keep_mask(weight.abs()), stored=torch.float32
                )
            zeros = [matrix.read() == 0 for matrix in matrices]
            weights = [matrix.module.get_parameter("weight") for matrix in matrices]
            params = Reconstruction(learning_rate=3e-3, epochs=6)
            report = reconstruct(
                block, weights, [weight.dtype for weight in weights], samples, params, quiet
            )
            for matrix, zero in zip(matrices, zeros, strict=True):
                assert torch.equal(matrix.read() == 0, zero)
    assert report.loss_after < 0.9 * report.loss_before


def test_one_window_is_too_few_for_a_run(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "m", "llama")
    spec = PruneSpec.model_validate(
        {"method": "wanda", "sparsity": 0.5, "reconstruction": {}, "evaluation": {"tasks": []}}
    )
    with pytest.raises(DatasetTooSmall, match="two calibration windows"):
        prune(folder, spec, tmp_path / "out", tokens=tiny.tokens(1))
