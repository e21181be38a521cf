"""What holds for every method of the union, under every pattern, on random shapes, ratios and inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_core.numerics.input_statistics import STATISTICS, Collector, Stats
from pruning_core.plans.registry import Element, element
from pruning_core.selection.masks import Selector
from pruning_core.spec.element_methods import ALPS, RIA, CRePE, ElementMethod, Neighbour, SparseGPT
from pruning_core.spec.methods import METHODS, method_name
from pruning_core.spec.patterns import MatrixWide, NofM, Pattern, Row, removed_count
from tests.examples import examples

VARIANTS: list[ElementMethod] = [
    *(method() for method in METHODS if method.kind == "element"),
    *(CRePE(gamma=0.7, kernel=5, neighbour=neighbour) for neighbour in get_args(Neighbour)),
    ALPS(schedule="gradual", cg_steps=0),
    SparseGPT(damp=1.0),
    RIA(exponent=0),
]
INPUTS = ["random", "few", "one token", "dead channels", "zero", "constant"]
CPU = torch.device("cpu")
seeds = st.integers(0, 2**31)


def variant_name(method: ElementMethod) -> str:
    changed = method.model_dump(exclude_defaults=True)
    return "-".join([method_name(type(method)), *map(str, changed.values())])


every_method = pytest.mark.parametrize("method", VARIANTS, ids=variant_name)
some = settings(deadline=None, max_examples=examples(40))


@dataclass(frozen=True)
class Case:
    """A matrix, how much of it goes, and what its input was."""

    weight: torch.Tensor
    inputs: torch.Tensor
    select: Selector

    @property
    def removed(self) -> int:
        """How many weights the specification says go, counted here and not by the selector."""
        rows, width = self.weight.shape
        match self.select:
            case Selector(pattern=NofM(n=n, m=m)):
                return rows * width // m * (m - n)
            case Selector(count=int(count)):
                return count
            case Selector(ratio=ratio, pattern=Row()):
                return rows * removed_count(ratio, width)
        return removed_count(self.select.ratio, rows * width)

    def prune(
        self, method: ElementMethod, *, weight: float = 1, inputs: float = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prune by a method, weight and inputs scaled."""
        part = element(method)
        stats = statistics(part, self.inputs * inputs)
        return part.prune(self.weight * weight, stats, self.select)


def statistics(part: Element, inputs: torch.Tensor) -> Stats:
    collector = Collector(part.needs, inputs.shape[1], CPU)
    for batch in torch.split(inputs, 13):
        collector.update(batch)
    return collector.stats("test")


def inputs_of(kind: str, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = {"few": max(1, width // 3), "one token": 1}.get(kind, 3 * width)
    mixing = torch.eye(width) + torch.randn(width, width, generator=generator) / width
    inputs = torch.randn(tokens, width, generator=generator) @ mixing
    if kind == "dead channels":
        inputs[:, torch.rand(width, generator=generator) < 0.4] = 0
    if kind == "zero":
        inputs.zero_()
    if kind == "constant":
        inputs.fill_(0.5)
    return inputs


@st.composite
def cases(draw: st.DrawFn, kinds: list[str] = INPUTS) -> Case:
    m = draw(st.integers(2, 9))
    n = draw(st.integers(1, m - 1))
    rows, width = draw(st.integers(1, 10)), m * draw(st.integers(1, 5))
    seed = draw(seeds)
    pattern: Pattern = draw(st.sampled_from([Row(), MatrixWide(), NofM(n=n, m=m)]))
    ratio = 1 - n / m if isinstance(pattern, NofM) else draw(st.floats(0.01, 0.95))
    count = None
    if not isinstance(pattern, NofM) and draw(st.booleans()):
        count = draw(st.integers(0, rows * width - 1))
        ratio = count / (rows * width)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    if draw(st.booleans()):  # ties, and rows and columns of zeros
        weight = (weight * 1.5).round()
    inputs = inputs_of(draw(st.sampled_from(kinds)), width, seed)
    return Case(weight, inputs, Selector(ratio, pattern, count))


@every_method
@given(case=cases())
@some
def test_counts_are_exact_and_weights_finite(method: ElementMethod, case: Case) -> None:
    pruned, keep = case.prune(method)
    assert pruned.shape == keep.shape == case.weight.shape
    assert (pruned.dtype, keep.dtype) == (torch.float32, torch.bool)
    assert torch.isfinite(pruned).all()
    assert not pruned[~keep].any()
    assert int((~keep).sum()) == case.removed
    pattern, per_row = case.select.pattern, keep.sum(dim=1)
    if isinstance(pattern, NofM):
        assert (keep.reshape(-1, pattern.m).sum(dim=1) == pattern.n).all()
    if isinstance(pattern, Row):
        assert int(per_row.max() - per_row.min()) <= (case.select.count is not None)
    if element(method).update is None:
        assert torch.equal(pruned, case.weight * keep)


@every_method
@given(case=cases(), power=st.integers(-3, 3))
@some
def test_scaling_the_inputs_changes_no_mask(method: ElementMethod, case: Case, power: int) -> None:
    """Powers of 4 scale every intermediate value exactly, roots included."""
    assert torch.equal(case.prune(method)[1], case.prune(method, inputs=4.0**power)[1])


@every_method
@given(case=cases(), power=st.integers(-6, 6))
@some
def test_scaling_the_weight_scales_the_result(
    method: ElementMethod, case: Case, power: int
) -> None:
    pruned, keep = case.prune(method)
    scaled, mask = case.prune(method, weight=2.0**power)
    assert torch.equal(keep, mask)
    assert torch.equal(scaled, pruned * 2.0**power)


@pytest.mark.parametrize(
    "method",
    [m for m in VARIANTS if element(m).update is None and not isinstance(m, CRePE)],
    ids=variant_name,
)
@given(case=cases(), seed=seeds)
@some
def test_permuted_rows_give_permuted_rows(method: ElementMethod, case: Case, seed: int) -> None:
    """Weights are multiples of 1/8, so that column sums are exact in any order. CRePE sees neighbours."""
    weight = (case.weight * 8).round() / 8
    select = Selector(case.select.ratio, Row())
    if isinstance(case.select.pattern, NofM):
        select = case.select
    order = torch.randperm(len(weight), generator=torch.Generator().manual_seed(seed))
    plain = Case(weight, case.inputs, select).prune(method)
    moved = Case(weight[order], case.inputs, select).prune(method)
    assert all(torch.equal(one[order], other) for one, other in zip(plain, moved, strict=True))


@every_method
@given(case=cases(["random"]))
@some
def test_the_same_twice_is_the_same_and_arguments_stay(method: ElementMethod, case: Case) -> None:
    weight = case.weight.clone()
    stats = statistics(element(method), case.inputs)
    before = {name: getattr(stats, name) for name in STATISTICS}
    copies = {name: None if value is None else value.clone() for name, value in before.items()}
    first = element(method).prune(case.weight, stats, case.select)
    second = element(method).prune(case.weight, stats, case.select)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(case.weight, weight)
    for name, value in before.items():
        assert value is None or torch.equal(value, copies[name])


@every_method
@given(case=cases(["random", "few"]))
@some
def test_scores_are_finite_and_at_least_zero(method: ElementMethod, case: Case) -> None:
    part = element(method)
    score = part.score(case.weight, statistics(part, case.inputs), method)
    assert score.shape == case.weight.shape
    assert torch.isfinite(score).all()
    assert (score >= 0).all()


@pytest.mark.parametrize(
    "method", [method for method in VARIANTS if element(method).update is None], ids=variant_name
)
@given(case=cases(["random"]), seed=seeds)
@some
def test_an_order_of_channels_is_counted_in_and_scored_without(
    method: ElementMethod, case: Case, seed: int
) -> None:
    """Groups are those of the order; a score that looks at neighbours sees the original ones."""
    part, stats = element(method), statistics(element(method), case.inputs)
    order = torch.randperm(case.weight.shape[1], generator=torch.Generator().manual_seed(seed))
    score = part.score(case.weight, stats, method)
    expected = case.select.keep_mask(score[:, order])
    pruned, keep = part.prune(
        case.weight[:, order], stats.permuted(order), case.select, score[:, order]
    )
    assert torch.equal(keep, expected)
    assert torch.equal(pruned, case.weight[:, order] * expected)
