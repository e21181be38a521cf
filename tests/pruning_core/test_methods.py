"""What every method must do; the list comes from the registry. What units need beside this: `test_unit_methods`."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from pruning_core.numerics.input_statistics import STATISTICS, Collector, Stats
from pruning_core.pipeline.phases import prune
from pruning_core.plans.registry import element, unit_score
from pruning_core.selection.masks import Selector
from pruning_core.spec.element_methods import ElementMethod, Magnitude, Wanda
from pruning_core.spec.methods import METHODS, method_name
from pruning_core.spec.patterns import MatrixWide, Row
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.unit_method import UnitKind, UnitMethod
from tests.pruning_core.trained import counting, loss_after, train

ELEMENTS: list[type[ElementMethod]] = [m for m in METHODS if issubclass(m, ElementMethod)]
UNITS: list[type[UnitMethod]] = [m for m in METHODS if issubclass(m, UnitMethod)]
WHOLE = {"diet": "merged", "layer_drop": "lowest"}
"""What the methods define whose units are not compared within a block."""
PATTERNS = [{"name": "row"}, {"name": "matrix"}, {"name": "n:m", "n": 2, "m": 4}]


def inputs(tokens: int = 200, width: int = 16, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.1, 3, width)
    return torch.randn(tokens, width, generator=generator) * scale


def statistics(method: type[ElementMethod], x: torch.Tensor) -> Stats:
    collector = Collector(element(method()).needs, x.shape[1], x.device)
    for batch in torch.split(x, 37):
        collector.update(batch)
    return collector.stats("test")


def weight(rows: int = 12, width: int = 16, seed: int = 4) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern["name"])
@pytest.mark.parametrize("method", ELEMENTS, ids=method_name)
def test_the_count_is_exact_and_survivors_are_where_keep_says(
    method: type[ElementMethod], pattern: dict[str, Any]
) -> None:
    ratio = {} if pattern["name"] == "n:m" else {"sparsity": 0.5}
    spec = PruneSpec.model_validate({"method": method_name(method), "pattern": pattern, **ratio})
    select = Selector(spec.ratio, spec.pattern)
    pruned, keep = element(spec.method).prune(weight(), statistics(method, inputs()), select)
    assert int(keep.sum()) * 2 == keep.numel()
    assert not pruned[~keep].any()
    assert torch.isfinite(pruned).all()


@pytest.mark.parametrize("method", ELEMENTS, ids=method_name)
@pytest.mark.parametrize("value", [0.0, 1.0], ids=["zero", "constant"])
def test_dull_calibration_gives_finite_weights(method: type[ElementMethod], value: float) -> None:
    x = torch.full((50, 16), value)
    pruned, keep = element(method()).prune(weight(), statistics(method, x), Selector(0.5, Row()))
    assert torch.isfinite(pruned).all()
    assert int(keep.sum()) * 2 == keep.numel()


@pytest.mark.parametrize("method", ELEMENTS, ids=method_name)
def test_scaling_all_inputs_changes_no_mask(method: type[ElementMethod]) -> None:
    select = Selector(0.5, MatrixWide())
    masks = [
        element(method()).prune(weight(), statistics(method, inputs() * c), select)[1]
        for c in (1.0, 4.0)
    ]
    assert torch.equal(*masks)


@pytest.mark.parametrize("method", ELEMENTS, ids=method_name)
def test_each_method_is_one_file_with_needs_and_a_score(method: type[ElementMethod]) -> None:
    module = importlib.import_module(f"pruning_core.element_methods.{method_name(method)}")
    assert method.needs_calibration == bool(module.NEEDS)
    assert method.default_pattern in method.patterns
    assert (module.__doc__ or "").count("\n") >= 2


@pytest.mark.parametrize("method", UNITS, ids=method_name)
def test_each_method_for_units_is_one_file_with_needs_and_a_score(method: type[UnitMethod]) -> None:
    name = method_name(method)
    module = importlib.import_module(f"pruning_core.unit_methods.{name}")
    assert (module.__doc__ or "").count("\n") >= 2
    assert method.patterns == (method.default_pattern,) == ("units",)
    assert set(method().unit_kinds) <= set(get_args(UnitKind))
    if name in WHOLE:
        assert callable(getattr(module, WHOLE[name]))
        return
    found = unit_score(method())
    assert found.needs | found.input_needs <= set(STATISTICS)
    assert method.needs_calibration == bool(found.needs | found.input_needs)


def test_every_method_is_of_one_kind_and_named_once() -> None:
    assert [*ELEMENTS, *UNITS] == [*METHODS]
    names = [method_name(method) for method in METHODS]
    assert len(set(names)) == len(names)


def test_wanda_equals_the_formula_in_numpy() -> None:
    w, x = weight(4, 6), inputs(50, 6)
    _, keep = element(Wanda()).prune(w, statistics(Wanda, x), Selector(0.5, Row()))
    score = np.abs(w.numpy()) * np.sqrt(np.mean(x.numpy().astype(np.float64) ** 2, axis=0))
    expected = np.ones_like(score, dtype=bool)
    for row, order in enumerate(np.argsort(score, axis=1, kind="stable")):
        expected[row, order[:3]] = False
    assert (keep.numpy() == expected).all()


def test_wanda_on_inputs_of_one_size_is_magnitude_per_row() -> None:
    x = torch.ones(50, 16) * torch.randint(2, (50, 16)).mul(2).sub(1)
    select = Selector(0.5, Row())
    _, keep = element(Wanda()).prune(weight(), statistics(Wanda, x), select)
    _, expected = element(Magnitude()).prune(weight(), Stats(tokens=0), select)
    assert torch.equal(keep, expected)


def test_wanda_removes_a_dead_channel_first() -> None:
    x = inputs()
    x[:, 5] = 0
    _, keep = element(Wanda()).prune(weight(), statistics(Wanda, x), Selector(0.1, Row()))
    assert not keep[:, 5].any()


def test_magnitude_equals_the_formula_in_numpy() -> None:
    w = weight(4, 6)
    _, keep = element(Magnitude()).prune(w, Stats(tokens=0), Selector(0.5, MatrixWide()))
    expected = np.ones(24, dtype=bool)
    expected[np.argsort(np.abs(w.numpy()).ravel(), kind="stable")[:12]] = False
    assert (keep.numpy().ravel() == expected).all()


def test_zero_weights_go_first() -> None:
    w = weight()
    w[:, ::4] = 0
    _, keep = element(Magnitude()).prune(w, Stats(tokens=0), Selector(0.25, MatrixWide()))
    assert torch.equal(keep, w != 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that has learnt to count."""
    return train(tmp_path_factory.mktemp("trained") / "model")


@pytest.mark.parametrize("method", ELEMENTS, ids=method_name)
def test_better_than_random_on_a_small_trained_model(
    method: type[ElementMethod], trained: Path, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)

    def random_mask(w: torch.Tensor) -> torch.Tensor:
        return Selector(0.5, Row()).keep_mask(torch.rand(w.shape, generator=generator))

    spec = PruneSpec.model_validate(
        {"method": method_name(method), "sparsity": 0.5, "evaluation": {"tasks": []}}
    )
    prune(trained, spec, tmp_path, tokens=counting(32, 24, seed=100))
    dense, at_random = loss_after(trained, None), loss_after(trained, random_mask)
    pruned = loss_after(tmp_path / "checkpoint", None)
    assert dense < 1.0  # it has learnt something
    assert math.isfinite(pruned)
    assert pruned < at_random
