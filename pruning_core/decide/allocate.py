"""Ratios per block: asks the allocation of the specification, and turns its answer into exact counts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pruning_core.allocations import alphapruning, owl, ramp
from pruning_core.element_methods import wanda
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.plans.element import ElementPlan
from pruning_core.prune.walk import observe
from pruning_core.selection.ratios import removed_counts
from pruning_core.spec.composition import AlphaPruning, DepthRamp, Owl
from pruning_core.spec.element_methods import Wanda
from pruning_core.spec.prune import PruneSpec


def needs_forward(spec: PruneSpec) -> bool:
    """Tell whether the allocation reads calibration text."""
    return isinstance(spec.allocation, Owl)


def allocate(
    model: StreamedModel,
    spec: PruneSpec,
    states: Activations | None,
    block_done: Callable[[int], None],
    alive: Callable[[], None],
) -> tuple[float, ...]:
    """Return the share removed from each block; their mean, weighted by size, is the specification's.

    Args:
        model: The dense model.
        spec: With an allocation other than uniform.
        states: Of the calibration windows at the first block, if `needs_forward`.
        block_done: Called with each block's index.
        alive: Called after every matrix.
    """
    sizes = [sum(block) for block in matrix_sizes(model)]
    found: list[list[float]] = [[] for _ in sizes]
    scores: list[torch.Tensor] = []
    params = spec.allocation

    def visit(index: int, group: InputGroup, stats: Stats) -> None:
        for matrix in group.matrices:
            if isinstance(params, Owl):
                scores.append(wanda.score(matrix.read(), stats, Wanda()))
            else:
                found[index].append(alphapruning.alpha(matrix.read()))
            alive()

    def done(index: int) -> None:
        if isinstance(params, Owl):
            found[index].append(owl.outliers(scores, params.threshold))
            scores.clear()
        block_done(index)

    if isinstance(params, DepthRamp):
        return tuple(ramp.ratios(len(sizes), sizes, spec.ratio, params))
    observe(model, states, wanda.NEEDS if isinstance(params, Owl) else (), visit, done)
    means = [sum(values) / len(values) for values in found]
    if isinstance(params, Owl):
        return tuple(owl.ratios(means, sizes, spec.ratio, params))
    assert isinstance(params, AlphaPruning)
    return tuple(alphapruning.ratios(means, sizes, spec.ratio, params))


def allocated(plan: ElementPlan, model: StreamedModel, ratios: tuple[float, ...]) -> ElementPlan:
    """Return the plan with these ratios, and counts that reach the requested share to the weight."""
    return plan.allocated(ratios, removed_counts(ratios, matrix_sizes(model), plan.select.ratio))


def matrix_sizes(model: StreamedModel) -> list[list[int]]:
    """Return the number of weights of every prunable matrix, per block, in order of execution."""
    return [
        [
            matrix.shape[0] * matrix.shape[1]
            for group in input_groups(block, model.family, model.config)
            for matrix in group.matrices
        ]
        for block in model.blocks
    ]
