"""Units at random, each group by a seed of its own: the control.

score = uniform random numbers;   the lowest go
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pruning_core.decide.dense_model import DenseModel
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.unit_methods import RandomUnits
from pruning_core.units.candidates import Candidates

NEEDS: tuple[str, ...] = ()
INPUT_NEEDS: tuple[str, ...] = ()


def decide(dense: DenseModel, params: RandomUnits) -> UnitPlan:
    """Return the plan without random residual dimensions or blocks; units within blocks are left to `score`."""
    sizes = dense.target.solve(dense.kinds)
    plan, whole = replace(dense.plan, sizes=sizes), dense.layout.sizes
    if "hidden" in dense.kinds:
        return replace(plan, hidden=_some(whole.hidden, whole.hidden - sizes.hidden, params))
    if "layers" in dense.kinds:
        gone = _some(whole.layers, whole.layers - sizes.layers, params)
        return replace(plan, layers=tuple(gone.tolist()))
    return plan


def _some(size: int, n_drop: int, params: RandomUnits) -> torch.Tensor:
    return shuffled(size, params, 0).argsort()[:n_drop].sort().values


def score(group: Candidates, params: RandomUnits) -> torch.Tensor:
    """Return a random importance of every unit, [size]."""
    return shuffled(group.size, params, group.seed).to(group.readout.device)


def shuffled(size: int, params: RandomUnits, number: int) -> torch.Tensor:
    """Return random numbers, float32 [size], for one of several groups."""
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + number)
    return torch.rand(size, generator=generator)
