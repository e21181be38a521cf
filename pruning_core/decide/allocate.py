"""Ratios per block: asks the allocation of the specification, and turns its answer into exact counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.plans.element import ElementPlan
from pruning_core.plans.registry import allocation
from pruning_core.prune.walk import observe
from pruning_core.selection.ratios import removed_counts
from pruning_core.spec.prune import PruneSpec
from pruning_core.system.progress import Tracker


def allocate(
    model: StreamedModel, spec: PruneSpec, states: Activations | None, tracker: Tracker
) -> tuple[float, ...]:
    """Return the share removed from each block; their mean, weighted by size, is the specification's.

    Args:
        model: The dense model.
        spec: With an allocation that varies.
        states: Of the calibration windows at the first block, if the allocation reads them.
        tracker: Told of every matrix and block.
    """
    asked = allocation(spec.allocation)
    measure, measured = asked.measure, list[float]()
    if measure is not None:
        observe(
            model,
            states,
            asked.needs,
            lambda _index, inputs: measured.append(
                measure(_matrices(inputs, tracker), asked.params)
            ),
            lambda index: tracker.step(index + 1),
        )
    sizes = [sum(block) for block in matrix_sizes(model)]
    return tuple(asked.ratios(measured, sizes, spec.ratio, asked.params))


def _matrices(
    inputs: Sequence[tuple[InputGroup, Stats]], tracker: Tracker
) -> Iterator[tuple[torch.Tensor, Stats]]:
    """Yield every weight of a block, [out, in], with the statistics of its input."""
    for group, stats in inputs:
        for matrix in group.matrices:
            yield matrix.read(), stats
            tracker.alive()


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
