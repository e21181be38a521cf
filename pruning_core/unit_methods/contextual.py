"""Contextual pruning (Mini-GPTs): Valicenti, Vidal, Patnaik, arXiv 2312.12682; code tval2/contextual-pruning.

On a domain's text, on the dense model:

unit    = mean over its channels and all tokens of |x_j|, x the read-out's input (after the activation, gate times up)
amount  : a threshold, absolute or relative to the mean over the units of the block, or the share that was asked for
tokens  : of relative frequency at most `token_threshold`, but special and byte tokens and what others are spelt from
zero mode, linear part: row i of every matrix goes if min(mean |y_i|, mean |y_i - b_i|) is at most the threshold,
          column j if mean |x_j| is

Departures: the authors write zeros, and hook ReLU and GELU only, so that nothing happens on SiLU models; here units are cut
out of every family. In `remove` mode the threshold gives one number for all blocks, the mean of what it would take from
each, because widths must be uniform. They calibrate and evaluate on the same text; here that is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from pruning_core.decide.dense_model import DenseModel, Scores, taken_per_block
from pruning_core.decide.vocabulary import without_tokens
from pruning_core.model.matrix import input_groups
from pruning_core.plans.low_activation import Masks, low_activation_masks
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.walk import forward
from pruning_core.spec.unit_method import InnerKind, inner_kinds
from pruning_core.spec.unit_methods import Contextual
from pruning_core.structure.spans import Sizes
from pruning_core.structure.target import SLACK
from pruning_core.units.candidates import Candidates

NEEDS = ("column_mean_abs",)
INPUT_NEEDS: tuple[str, ...] = ()


def decide(dense: DenseModel, params: Contextual) -> UnitPlan:
    """Return the plan: tokens first, then neurons and heads by share or by threshold.

    Raises:
        ModelInvalid: tokens are to go and the tokenizer, or what names its ids, cannot be renumbered.
        SizeUnreachable: nothing would go.
    """
    plan, kinds = dense.plan, inner_kinds(dense.kinds)
    if "vocabulary" in dense.kinds:
        plan = without_tokens(dense, lambda counts: tokens_to_keep(counts, params))
    if kinds and not plan.removing and params.decides_amount:
        plan = _by_the_authors_rules(dense, plan, params)
    elif kinds:
        plan = _without_units(dense, plan, params, kinds)
    dense.refuse_nothing(plan)
    return plan


def _without_units(
    dense: DenseModel, plan: UnitPlan, params: Contextual, kinds: tuple[InnerKind, ...]
) -> UnitPlan:
    if not params.decides_amount and _reached(dense, plan.sizes):
        dense.warnings.append(
            "Tokens alone reach the amount that was asked for; nothing else goes."
        )
        return plan
    scores = dense.scores(kinds)
    if params.decides_amount:
        sizes = _by_threshold(dense, scores, plan.sizes, params)
    else:
        sizes = dense.target.solve(kinds, plan.sizes)
    return replace(plan, sizes=sizes, inner=dense.lowest(scores, sizes))


def _reached(dense: DenseModel, sizes: Sizes) -> bool:
    """Tell whether the tokens that go leave the model as small as it was asked for."""
    target = dense.target
    return target.weigh(sizes) <= (1 + SLACK) * target.size


def _by_threshold(dense: DenseModel, scores: Scores, sizes: Sizes, params: Contextual) -> Sizes:
    """Return the sizes at which every block loses the mean of what the threshold takes from all."""
    for kind in inner_kinds(dense.kinds):
        taken = taken_per_block(scores, kind, lambda of_group: below(of_group, params))
        sizes = dense.nearest(kind, taken, sizes)
    return sizes


def _by_the_authors_rules(dense: DenseModel, plan: UnitPlan, params: Contextual) -> UnitPlan:
    """Zero single rows and columns, and neurons, by the threshold."""
    masks: dict[tuple[int, str], Masks] = {}
    chosen: dict[tuple[int, str], torch.Tensor] = {}
    kinds, model = inner_kinds(dense.kinds), dense.model
    if "kv_groups" in kinds:
        states = dense.states()

        def visit(index: int, block: Any) -> None:
            groups = input_groups(block, model.family, model.config)
            bounds = {"absolute": params.absolute, "relative": params.relative}
            for name, of_matrix in low_activation_masks(
                index, block, groups, states, **bounds
            ).items():
                masks[index, name] = of_matrix

        forward(model, states, dense.progress(), visit)
    if "neurons" in kinds:
        for key, of_group in dense.scores(["neurons"]).items():
            chosen[key] = below(of_group, params).nonzero().flatten()
    return replace(
        plan,
        low_activation={
            key: of_matrix for key, of_matrix in masks.items() if any(map(len, of_matrix))
        },
        inner={key: units for key, units in chosen.items() if len(units)},
    )


def score(group: Candidates, params: Contextual) -> torch.Tensor:
    """Return the importance of every unit, [size]."""
    return group.mean_sizes()


def below(scores: torch.Tensor, params: Contextual) -> torch.Tensor:
    """Mark what a threshold takes.

    Args:
        scores: [size], of one block.
        params: With a threshold.
    """
    if params.absolute is not None:
        return scores <= params.absolute
    assert params.relative is not None
    return scores <= params.relative * scores.mean()


def tokens_to_keep(counts: torch.Tensor, params: Contextual) -> torch.Tensor:
    """Mark the tokens that are frequent enough.

    Args:
        counts: int64 [vocabulary], in the calibration text.
        params: With the threshold.
    """
    return counts > params.token_threshold * int(counts.sum())
