"""What is decided before the first block of a job that removes units: sizes, and whatever is chosen on the dense model.

The method's own file decides (`decide`); where it does not, the sizes nearest to what was asked for are taken. The decision
is kept on disk, so that a resumed run decides nothing again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pruning_core.admission.unit_checks import check_units
from pruning_core.decide.dense_model import DenseModel
from pruning_core.errors import ResumeMismatch
from pruning_core.plans import unit_store
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.unit_method import UNIT_NAMES, inner_kinds
from pruning_core.structure.cutter import kept_alone
from pruning_core.structure.layout import uncompensated
from pruning_core.structure.target import SLACK
from pruning_core.system import run_folder

TOKENS_PER_INPUT = 10
"""Calibration tokens that a least-squares fit should have for every input of a matrix."""
DecideFunction = Callable[[DenseModel, Any], UnitPlan]


def decide(dense: DenseModel, fingerprint: str, *, begun: bool) -> UnitPlan:
    """Return the plan of the walk, from the work folder where it is there.

    Args:
        dense: The dense model, and what was asked of it.
        fingerprint: Of the run.
        begun: Whether blocks were pruned already, by a decision that must then be there.

    Raises:
        ResumeMismatch: it is not.
        SizeUnreachable, UnitsUnsupported: what was asked for cannot be had from this model and text.
    """
    check_units(dense.spec, dense.layout)
    path = dense.work / run_folder.UNITS
    plan = unit_store.read(path, fingerprint, dense.plan)
    if plan is None:
        if begun:
            raise ResumeMismatch(
                f"{dense.work} has pruned blocks, but not what was decided before them: remove it to start again"
            )
        dense.warnings.extend(_beforehand(dense))
        plan = _decision_of(dense.params.name)(dense, dense.params)
        dense.warnings.extend(_off_target(dense, plan))
        plan = replace(plan, warnings=tuple(dense.warnings))
        unit_store.write(path, fingerprint, plan)
    return _with_score(dense, plan)


def by_size(dense: DenseModel, _params: Any) -> UnitPlan:
    """Return the plan that takes as many units as the job asks for, by the scores that the walk sees."""
    return replace(dense.plan, sizes=dense.target.solve(dense.kinds))


def _decision_of(method: str) -> DecideFunction:
    module = importlib.import_module(f"pruning_core.unit_methods.{method}")
    decision: DecideFunction = getattr(module, "decide", by_size)
    return decision


def _with_score(dense: DenseModel, plan: UnitPlan) -> UnitPlan:
    """Return the plan with what the walk still has to do: choose by score, or fit."""
    whole = dense.layout.sizes
    loses = any(plan.sizes.of(kind) != whole.of(kind) for kind in inner_kinds(dense.kinds))
    if loses and not plan.inner:
        return replace(plan, score=dense.score)
    fits = plan.inner or plan.hidden is not None
    return plan if fits else replace(plan, refit=None)


def _beforehand(dense: DenseModel) -> Iterator[str]:
    """Yield what the user must know of a job before anything is decided."""
    yield from kept_alone(dense.cutter, dense.params.unit_kinds)
    if dense.params.keeps_means:
        for kind in uncompensated(dense.layout, inner_kinds(dense.kinds)):
            yield f"The means of {UNIT_NAMES[kind]} that go are lost: their read-out has no bias to keep them."
    inputs = _widest_fit(dense)
    if inputs and dense.windows.tokens < TOKENS_PER_INPUT * inputs:
        yield (
            f"Matrices of {inputs:,} inputs are fitted on no more than {dense.windows.tokens:,} calibration tokens."
            f" With fewer than {TOKENS_PER_INPUT} tokens per input a fit follows the noise of the text, or is pulled"
            " back from it and gains less: raise `samples` or `seq_len`."
        )


def _widest_fit(dense: DenseModel) -> int:
    """Return the inputs of the widest matrix that least squares fit, 0 where they fit none."""
    layout, refits = dense.layout, dense.spec.refit is not None
    if dense.params.fits_modules is not None or (refits and "hidden" in dense.kinds):
        return max(layout.input_widths)
    widths = {"neurons": layout.sizes.neurons, "kv_groups": layout.heads * layout.head_dim}
    return max((widths[kind] for kind in inner_kinds(dense.kinds)), default=0) if refits else 0


def _off_target(dense: DenseModel, plan: UnitPlan) -> Iterator[str]:
    """Tell where the nearest legal size is not what was asked for."""
    spec = dense.spec
    if spec.sparsity is None and spec.budget is None:
        return
    target = dense.target
    weight = target.weigh(plan.sizes)
    if abs(weight - target.size) <= SLACK * target.weigh(dense.layout.sizes):
        return
    if spec.sparsity is not None:
        share = dense.cutter.share(plan.sizes)
        text = f"{spec.sparsity:.1%} of the parameters were asked for, {share:.1%} go"
    else:
        unit = "bytes" if target.in_bytes else "parameters"
        text = f"A model of {target.size:,} {unit} was asked for, it has {weight:,}"
    yield f"{text}: the nearest legal sizes."
