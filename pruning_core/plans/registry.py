"""Finds the functions that implement the closed unions of the specification, by name and nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pruning_core.numerics.input_statistics import Stats
from pruning_core.plans.unit import UnitScore
from pruning_core.searches.space import CoefficientSearch, Perplexity
from pruning_core.selection.masks import Selector
from pruning_core.spec.composition import BlockAllocation, RefinementStep
from pruning_core.spec.element_methods import ElementMethod
from pruning_core.spec.methods import method_name
from pruning_core.spec.search import Search
from pruning_core.spec.unit_method import UnitMethod

ScoreFunction = Callable[[torch.Tensor, Stats, Any], torch.Tensor]
PruneFunction = Callable[[torch.Tensor, Stats, Selector, Any], tuple[torch.Tensor, torch.Tensor]]
RefineFunction = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, Stats, Selector, Any],
    tuple[torch.Tensor, torch.Tensor],
]
MeasureFunction = Callable[[Iterable[tuple[torch.Tensor, Stats]], Any], float]
RatiosFunction = Callable[[Sequence[float], Sequence[int], float, Any], list[float]]


@dataclass(frozen=True)
class Element:
    """An element-wise method: a score, or a score and a way of its own to choose and update.

    Attributes:
        params: The method's parameters.
        needs: Names of the statistics that it reads.
        score: (weight [out, in] float32, stats, params) -> importance [out, in], finite, at least 0.
        update: (weight, stats, select, params) -> (weight, keep_mask) for methods that move the survivors, else None.
    """

    params: ElementMethod
    needs: frozenset[str]
    score: ScoreFunction
    update: PruneFunction | None

    def prune(
        self,
        weight: torch.Tensor,
        stats: Stats,
        select: Selector,
        score: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pruned weight and the mask of what stays, both [out, in].

        Args:
            weight: [out, in] float32.
            stats: Of its input.
            select: How much, and in which pattern.
            score: [out, in], where it was taken before: with channels in another order than the model's, because some
                scores depend on what lies beside a weight. Methods that update take no notice of it.
        """
        if self.update is not None:
            return self.update(weight, stats, select, self.params)
        keep_mask = select.keep_mask(
            self.score(weight, stats, self.params) if score is None else score
        )
        return weight * keep_mask, keep_mask


@dataclass(frozen=True)
class Refine:
    """A refinement of a mask, of weights, or of both.

    Attributes:
        params: Its parameters.
        needs: Names of the statistics that it reads.
        apply: (dense weight, weight, keep_mask, stats, select, params) -> (weight, keep_mask), all [out, in].
    """

    params: RefinementStep
    needs: frozenset[str]
    apply: RefineFunction


@dataclass(frozen=True)
class Allocate:
    """A way to give every block a ratio.

    Attributes:
        params: Its parameters.
        needs: Names of the statistics that `measure` reads.
        measure: ((weight [out, in], stats) of every matrix of one block, params) -> number; None where no block is looked at.
        ratios: (numbers of all blocks, their weights' counts, ratio of the model, params) -> ratio of every block.
    """

    params: BlockAllocation
    needs: frozenset[str]
    measure: MeasureFunction | None
    ratios: RatiosFunction


def element(params: ElementMethod) -> Element:
    """Return the implementation of a method: its file defines `NEEDS`, `score` and, if it updates, `prune`."""
    module = importlib.import_module(f"pruning_core.element_methods.{method_name(type(params))}")
    return Element(params, frozenset(module.NEEDS), module.score, getattr(module, "prune", None))


def refinement(params: RefinementStep) -> Refine:
    """Return the implementation of a refinement: its file defines `NEEDS` and `refine`."""
    module = importlib.import_module(f"pruning_core.refinements.{params.name}")
    return Refine(params, frozenset(module.NEEDS), module.refine)


def allocation(params: BlockAllocation) -> Allocate:
    """Return the implementation of an allocation: its file defines `NEEDS`, `ratios` and, if it looks at blocks, `measure`."""
    module = importlib.import_module(f"pruning_core.allocations.{params.name}")
    needs, measure = frozenset(module.NEEDS), getattr(module, "measure", None)
    return Allocate(params, needs, measure, module.ratios)


def coefficient_search(
    params: Search, method: ElementMethod, ratio: float, perplexity: Perplexity
) -> CoefficientSearch:
    """Return the implementation of a search: its file defines the class `Search`."""
    module = importlib.import_module(f"pruning_core.searches.{params.name}")
    made: CoefficientSearch = module.Search(params, method, ratio, perplexity)
    return made


def unit_score(params: UnitMethod) -> UnitScore:
    """Return the implementation of a method that scores units: its file defines `NEEDS`, `INPUT_NEEDS` and `score`.

    It may define `choose`.
    """
    module = importlib.import_module(f"pruning_core.unit_methods.{method_name(type(params))}")
    return UnitScore(
        params,
        frozenset(module.NEEDS),
        frozenset(module.INPUT_NEEDS),
        module.score,
        getattr(module, "choose", None),
    )
