"""What every phase costs beside the others, in tokens through one block: so that progress is told as a share of the whole."""

from __future__ import annotations

import torch

from pruning_core.pipeline.run import Run
from pruning_core.recover.held_out import most
from pruning_core.recover.schedule import Schedule
from pruning_core.spec.recovery import Recovery
from pruning_core.spec.unit_method import UnitMethod

_PRUNE_COST = 1.9
_FIXED_COST = 0.04


def costs(run: Run) -> dict[str, float]:
    """Return what the phases cost, by key."""
    blocks = run.facts.blocks
    evaluated = run.evaluation_set.tokens * blocks
    forward = float(run.windows.tokens if run.windows else 1) * blocks
    costs = {"pruning": forward * _PRUNE_COST, "evaluating_pruned": float(evaluated)}
    if run.training is not None and run.spec.recovery is not None:
        costs["recovering"] = _training_cost(run.spec.recovery, run.training) * blocks
    if isinstance(run.spec.method, UnitMethod) and run.windows is not None:
        costs["observing"] = forward
    if run.spec.held_out_windows:
        costs["searching"] = forward * _PRUNE_COST
    if run.spec.allocation.varies:
        reads = run.spec.allocation.needs_calibration
        costs["allocating"] = forward if reads else forward * _FIXED_COST
    if run.spec.evaluation.baseline:
        costs["evaluating_dense"] = float(evaluated)
    fixed = _FIXED_COST * sum(costs.values())
    return costs | {"saving": fixed, "verifying": fixed}


def _training_cost(params: Recovery, training: torch.Tensor) -> float:
    """Return the tokens of training and validating, each counted as often as a plain forward pass would cost it."""
    schedule = Schedule.of(params, len(training))
    trained = schedule.window_budget or len(training)
    validated = schedule.validations * min(
        most(training, params), round(params.validation * len(training))
    )
    teacher = 1 if params.distillation else 0
    windows = trained * (3 + teacher) + validated * (1 + teacher)
    return float(windows * training.shape[1])
