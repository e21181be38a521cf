"""FLAP: An, Zhao, Yu, Tang, Wang, arXiv 2312.11983 (AAAI 2024).

v_j     = variance of x_j, x the read-out's input on the dense model
S_j     = v_j * ||W[:, j]||^2          the output error that is left when channel j is replaced by its mean
neuron  = z-score of S_j over its block
group   = z-score of S_j^2 over its block, mean over the group's channels
split   : the sorted curves of both, averaged over blocks, are merged and cut once where the parameters reach the target;
          that gives one number of groups and one of neurons, the same in every block; the lowest of each block go

Departures: the authors' variance skips the first sequence and divides token sums by sequence counts (a constant factor);
a z-score of no spread is 0; numbers are the same in every block, because stock transformers loads nothing else; heads that
share a key-value head go together; counts are exact. The mean that goes is kept by `compensation: bias` where the read-out
has a bias, and by the refinement `refit`, which has it as its centred part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from pruning_core.decide.dense_model import DenseModel, Scores
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.unit_method import InnerKind
from pruning_core.spec.unit_methods import FLAP
from pruning_core.structure.spans import Sizes
from pruning_core.structure.target import Target
from pruning_core.units.candidates import Candidates

NEEDS = ("column_mean", "column_variance")
INPUT_NEEDS: tuple[str, ...] = ()


def decide(dense: DenseModel, params: FLAP) -> UnitPlan:
    """Return the plan without the units that fluctuate least on the dense model."""
    scores, target = dense.scores(), dense.target
    both = len(dense.kinds) > 1
    sizes = _split(dense, scores, target) if both else target.solve(dense.kinds)
    return replace(dense.plan, sizes=sizes, inner=dense.lowest(scores, sizes))


def _split(dense: DenseModel, scores: Scores, target: Target) -> Sizes:
    """Return the sizes at which groups and neurons are cut by one threshold."""
    whole = dense.layout.sizes
    curves: dict[InnerKind, list[torch.Tensor]] = {
        kind: [of_group for (_, name), of_group in scores.items() if name.startswith(kind)]
        for kind in ("kv_groups", "neurons")
    }
    weights: dict[InnerKind, int] = {
        kind: target.weigh(whole) - target.weigh(replace(whole, **{kind: whole.of(kind) - 1}))
        for kind in curves
    }
    gone = groups_to_drop(curves, weights, target.weigh(whole) - target.size)
    return target.with_groups(dense.nearest("kv_groups", gone, whole).kv_groups, whole)


def score(group: Candidates, params: FLAP) -> torch.Tensor:
    """Return the importance of every unit, [size], comparable between kinds."""
    variance = group.at_readout.column_variance
    assert variance is not None
    channels = variance * group.readout.square().sum(dim=0)
    if group.kind == "kv_groups":
        channels = channels.square()
    return group.per_unit(_standardised(channels)).mean(dim=1)


def _standardised(values: torch.Tensor) -> torch.Tensor:
    centred = values - values.mean()
    spread = centred.square().mean().sqrt()
    return centred / spread if float(spread) > 0 else torch.zeros_like(values)


def groups_to_drop(
    scores: Mapping[InnerKind, Sequence[torch.Tensor]],
    weights: Mapping[InnerKind, int],
    parameters: int,
) -> int:
    """Return how many key-value groups go where groups and neurons are cut by one threshold.

    Args:
        scores: Per kind one tensor [size] for every group of units.
        weights: Parameters of one unit of each kind, in all blocks together.
        parameters: How many shall go.
    """
    merged: list[tuple[float, InnerKind]] = []
    for kind, of_kind in scores.items():
        curve = torch.stack([of_group.sort().values for of_group in of_kind]).mean(dim=0)
        merged += [(value, kind) for value in curve.tolist()]
    dropped = dict.fromkeys(scores, 0)
    gone = 0
    for _, kind in sorted(merged):
        if gone + weights[kind] / 2 > parameters:
            break
        gone += weights[kind]
        dropped[kind] += 1
    return dropped["kv_groups"]
