"""Greedy output approximation: Li, Dong, Lei, arXiv 2407.19126 (CPAL 2025). From the paper; there is no reference code.

A module has two levels: v and o per head (all query heads of one key-value head), up or gate and down per neuron.

moment      M_j = ||B[:, j]||^2 * E (a_j x)^2      a_j row j of level one, B[:, j] column j of level two
  gated     M   = M(down, up) * M(down, gate)                    `product`
            M   = ||down[:, j]||^2 * E h_j^2,  h the read-out's input     `channel`
  attention M   = sum over the group's channels of ||o[:, j]||^2 * E (o's input)_j^2
similarity  D[i, j] = mean over samples and rows of JS(attention of i, attention of j), natural logarithm;
            of groups the mean over all pairs of their heads;   score_i = min over j > i of D[i, j]
  protected : pairs by rising D; of a pair the one with the smaller moment goes, unless it stands in for one that went
identity    E (a_j x)^2 is replaced by ||a_j||^2: no data

Modules are taken in network order; scores see the corrected weights and the inputs that the pruned model sees.
`reconstruct` fits level one, then level two, to the dense model's outputs before a module is scored, and level two again
on what stays. E (a_j x)^2 = a_j G a_j^T with the input's Gram matrix G.

Departures: heads go by whole key-value groups; the scan of the paper, "mark i if a later j is nearer than tau", equals
dropping every i with a later twin, so a threshold is not searched for; the last fit is ours. The printed ||B_i||^2 is read
as the column's norm, which is what its derivation needs.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pruning_core.admission.unit_checks import check_method
from pruning_core.decide.dense_model import DenseModel, taken_per_block
from pruning_core.decide.unit import by_size
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.unit_methods import GOA
from pruning_core.units.candidates import Candidates

NEEDS = ("column_mean_square",)
INPUT_NEEDS = ("column_mean", "gram")


def decide(dense: DenseModel, params: GOA) -> UnitPlan:
    """Return the plan: with a threshold, as many heads as it takes from a block of the dense model on the mean."""
    threshold = params.threshold
    if threshold is None:
        return by_size(dense, params)
    attention_alone = replace(dense.score, needs=frozenset(), input_needs=frozenset())
    scores = dense.scores(score=attention_alone)
    taken = taken_per_block(scores, "kv_groups", lambda divergence: divergence < threshold)
    plan = replace(dense.plan, sizes=dense.nearest("kv_groups", taken, dense.layout.sizes))
    dense.refuse_nothing(plan)
    check_method(params, dense.layout, plan.sizes)
    return plan


def score(group: Candidates, params: GOA) -> torch.Tensor:
    """Return the importance of every unit, [size]."""
    if group.kind == "kv_groups" and params.heads_by != "moment":
        assert group.divergence is not None
        return later_twin(group.divergence)
    return moment(group, params)


def choose(group: Candidates, n_drop: int, params: GOA) -> torch.Tensor | None:
    """Return the units that go where a score does not say it, int64; else None."""
    if group.kind != "kv_groups" or params.heads_by != "similarity_protected":
        return None
    assert group.divergence is not None
    return protected(group.divergence, moment(group, params), n_drop)


def moment(group: Candidates, params: GOA) -> torch.Tensor:
    """Return the second moment of what every unit adds to the module's output, [size]."""
    columns = group.readout.square().sum(dim=0)
    if group.kind == "kv_groups":
        squares = group.at_readout.root_mean_square.square()
        if params.covariance == "identity":
            squares = _of_values(group)
        return group.per_unit(columns * squares).sum(dim=1)
    if len(group.writers) > 1 and params.gated_form == "channel":
        return columns * group.at_readout.root_mean_square.square()
    product = torch.ones_like(columns)
    for writer, bias in zip(group.writers, group.biases, strict=True):
        product = product * columns * _second_moment(writer, bias, group, params)
    return product


def later_twin(divergence: torch.Tensor) -> torch.Tensor:
    """Return each unit's divergence to its nearest later one, [size]; the last has none and never goes.

    Args:
        divergence: [size, size], symmetric.
    """
    later = torch.ones_like(divergence, dtype=torch.bool).triu(1)
    return divergence.masked_fill(~later, torch.inf).min(dim=1).values


def protected(divergence: torch.Tensor, moments: torch.Tensor, n_drop: int) -> torch.Tensor:
    """Return units that go while each has a twin that stays, int64 ascending.

    The walk over all pairs leaves no two units of which neither stands in for another: it always reaches half.

    Args:
        divergence: [size, size], symmetric.
        moments: [size].
        n_drop: At most half of the units; more is refused before any work (`GOA.check_model`).
    """
    size = len(divergence)
    assert n_drop <= size // 2
    first, second = torch.triu_indices(size, size, 1)
    dropped: set[int] = set()
    standing_in: set[int] = set()
    for pair in divergence.cpu()[first, second].argsort(stable=True).tolist():
        low, high = sorted((int(first[pair]), int(second[pair])), key=lambda i: float(moments[i]))
        if len(dropped) == n_drop:
            break
        if {low, high} & dropped or low in standing_in:
            continue
        dropped.add(low)
        standing_in.add(high)
    return torch.tensor(sorted(dropped))


def _of_values(group: Candidates) -> torch.Tensor:
    """Return the squared norm of the value row behind each channel of the read-out, [channels]."""
    values = group.per_unit(group.writers[-1].square().sum(dim=1))
    shared = group.readout.shape[1] // values.numel()
    return values.repeat(1, shared).flatten()


def _second_moment(
    weight: torch.Tensor, bias: torch.Tensor | None, group: Candidates, params: GOA
) -> torch.Tensor:
    """Return E (a_j x + b_j)^2 of every row, [rows]."""
    if params.covariance == "identity":
        return weight.square().sum(dim=1)
    gram, mean = group.at_writers.gram, group.at_writers.column_mean
    assert gram is not None
    assert mean is not None
    squares = ((weight @ gram) * weight).sum(dim=1).clamp_min(0)
    return squares if bias is None else squares + 2 * bias * (weight @ mean) + bias.square()
