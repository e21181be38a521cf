"""What a run costs: every phase beside the others, so that progress is told as a share of the whole, and disk."""

from __future__ import annotations

import shutil

import torch

from pruning_core.errors import DiskFull
from pruning_core.pipeline.run import Run
from pruning_core.pipeline.saving import rounded_dtype
from pruning_core.recover.held_out import most
from pruning_core.recover.job import REPORT, STATE
from pruning_core.recover.schedule import Schedule
from pruning_core.spec.recovery import Recovery
from pruning_core.spec.unit_method import UnitMethod
from pruning_core.system import run_folder

_PRUNE_COST = 1.9
_FIXED_COST = 0.04
_STATE_BYTES = {"full": 12, "lora": 1}
"""Of training's state per parameter, beside the best weights: what is trained and AdamW's moments, in float32."""


def costs(run: Run) -> dict[str, float]:
    """Return what the phases cost, in tokens through one block, by key."""
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


def check_space(run: Run) -> None:
    """Block files, the checkpoint and each further form of it take about the model's size; finished blocks are there already."""
    there = sum(path.stat().st_size for path in run.work.glob(run_folder.BLOCKS))
    copies = (rounded_dtype(run) is not None) + (run.spec.output.gguf is not None)
    needed = int((2.1 + copies) * run.facts.bytes) - there + _recovery_space(run)
    free = shutil.disk_usage(run.out).free
    if free < needed:
        raise DiskFull(
            f"{needed} bytes of disk are needed for work files and result, {free} are free"
        )


def _recovery_space(run: Run) -> int:
    """Return the bytes of the trained checkpoint and of training's state, which is there twice while it is replaced."""
    recovery, folder = run.spec.recovery, run.work / run_folder.RECOVERY
    if recovery is None or (folder / REPORT).is_file():
        return 0
    states = 2 * (_STATE_BYTES[recovery.method] * run.facts.parameters + run.facts.bytes)
    there = sum(path.stat().st_size for path in folder.glob(STATE))
    return run.facts.bytes + states - there
