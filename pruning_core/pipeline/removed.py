"""How much went: of the weights of the pruned matrices, or of the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pruning_core.checkpoints.facts import inspect
from pruning_core.model.tensors import new_zeros
from pruning_core.pipeline.run import Run
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.report_parts.removal import BlockReport, SizeReport
from pruning_core.spec.unit_method import UNIT_NAMES


@dataclass(frozen=True)
class Removed:
    """How much went.

    Attributes:
        share: Of the weights of the pruned matrices, or of the whole model where units went.
        left: Parameters of the result.
        nonzero: Those that are not zero.
        sizes: What was cut.
    """

    share: float
    left: int
    nonzero: int
    sizes: tuple[SizeReport, ...] = ()


def removed(
    run: Run, plan: UnitPlan | None, blocks: Sequence[BlockReport], underflows: int
) -> Removed:
    """Return how much went.

    Args:
        run: The run, finished.
        plan: Which units went, if any.
        blocks: What became of them.
        underflows: Weights that rounding made zero.
    """
    whole = run.facts.parameters
    if plan is None:
        matrices = [matrix for block in blocks for matrix in block.matrices]
        weights = sum(matrix.shape[0] * matrix.shape[1] for matrix in matrices)
        zeros = sum(matrix.zeros for matrix in matrices)
        return Removed(zeros / weights, whole, whole - zeros - underflows)
    left = inspect(run.checkpoint).parameters
    zeros = 0
    if not plan.removing:
        zeros = new_zeros(run.source, run.checkpoint, alive=run.tracker.alive)
    return Removed((whole - left + zeros) / whole, left, left - zeros, _sizes(plan))


def _sizes(plan: UnitPlan) -> tuple[SizeReport, ...]:
    layout = plan.layout
    whole = layout.parameters(layout.sizes)
    return tuple(
        SizeReport(
            kind=kind,
            before=layout.sizes.of(kind),
            after=plan.sizes.of(kind),
            parameters_removed=whole
            - layout.parameters(replace(layout.sizes, **{kind: plan.sizes.of(kind)})),
        )
        for kind in UNIT_NAMES
        if plan.sizes.of(kind) != layout.sizes.of(kind)
    )
