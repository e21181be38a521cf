"""`ElementPlan`: everything that the walk must know to prune any matrix of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pruning_core.plans.registry import Element, Refine, element, refinement
from pruning_core.selection.masks import Selector
from pruning_core.spec.composition import Reconstruction
from pruning_core.spec.element_methods import ElementMethod
from pruning_core.spec.patterns import NofM
from pruning_core.spec.prune import PruneSpec


@dataclass(frozen=True)
class ElementPlan:
    """A specification with its names resolved to functions.

    Attributes:
        element: The method.
        refinements: Applied after it, in order.
        select: Ratio and pattern of a matrix to which no allocation applies.
        needs: Statistics that any part reads.
        stages: Whether a block's later inputs are recorded after its earlier matrices were pruned.
        reconstruction: How each pruned block is trained, if it is.
        ratios: One per block where an allocation decides.
        counts: Weights removed, per block and matrix in order of execution, where an allocation decides.
    """

    element: Element
    refinements: tuple[Refine, ...]
    select: Selector
    needs: frozenset[str]
    stages: bool
    reconstruction: Reconstruction | None
    ratios: tuple[float, ...] | None = None
    counts: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, spec: PruneSpec) -> ElementPlan:
        """Return the plan of a specification whose search and allocation are still to be done."""
        assert isinstance(spec.method, ElementMethod)
        method = element(spec.method)
        refinements = tuple(refinement(params) for params in spec.refinement)
        needs = method.needs.union(*(part.needs for part in refinements))
        if spec.needs_calibration and "gram" not in needs:
            needs |= {"sketch"}
        return cls(
            element=method,
            refinements=refinements,
            select=Selector(spec.ratio, spec.pattern),
            needs=needs,
            stages=spec.true_sequential,
            reconstruction=spec.reconstruction,
        )

    def allocated(self, ratios: Sequence[float], counts: Sequence[Sequence[int]]) -> ElementPlan:
        """Return the plan with a ratio per block."""
        return replace(self, ratios=tuple(ratios), counts=tuple(map(tuple, counts)))

    def select_for(self, block: int, matrix: int) -> Selector:
        """Return the selector of a block's matrix, both counted from 0."""
        if self.ratios is None or self.counts is None:
            return self.select
        return replace(self.select, ratio=self.ratios[block], count=self.counts[block][matrix])

    def refinements_of(self, *, attention: bool) -> list[Refine]:
        """Return what applies to a matrix of an attention, or to another."""
        return [part for part in self.refinements if attention or not part.params.attention_only]

    @property
    def permuting(self) -> NofM | None:
        """The n:m pattern, if it permutes channels."""
        pattern = self.select.pattern
        return pattern if isinstance(pattern, NofM) and pattern.permute != "none" else None
