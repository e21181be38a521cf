"""Whole blocks: Men et al., "ShortGPT", arXiv 2403.03853; one run of blocks: Gromov et al., arXiv 2403.17887.

BI_l     = 1 - mean over tokens of cos(h_l, h_{l+1}),  h_l the input of block l;   the lowest go, all at once
rescore  : one goes, the others are measured again
contiguous: the run of n blocks with the smallest mean of arccos(cos(h_l, h_{l+n})) / pi at the last token

The cosine with a zero vector is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import nn

from pruning_core.decide.dense_model import DenseModel
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.walk import forward
from pruning_core.spec.unit_methods import LayerDrop


def decide(dense: DenseModel, params: LayerDrop) -> UnitPlan:
    """Return the plan without the blocks that turn the hidden state least."""
    sizes = dense.target.solve(("layers",))
    n_drop = dense.layout.sizes.layers - sizes.layers
    if params.contiguous:
        gone = run_of(last_states(dense.model, dense.states(), dense.progress()), n_drop)
    elif params.rescore:
        gone = _rescored(dense, n_drop)
    else:
        gone = lowest(influences(dense.model, dense.states(), (), dense.progress()), n_drop)
    return replace(dense.plan, sizes=sizes, layers=tuple(gone.tolist()))


def _rescored(dense: DenseModel, n_drop: int) -> torch.Tensor:
    gone: list[int] = []
    done = dense.progress(n_drop)
    for _ in range(n_drop):
        turns = influences(dense.model, dense.states(), gone, done)
        turns[gone] = torch.inf
        gone += lowest(turns, 1).tolist()
    return torch.tensor(sorted(gone))


def lowest(influence: torch.Tensor, n_drop: int) -> torch.Tensor:
    """Return the blocks that go, int64 ascending; of equals the first.

    Args:
        influence: [blocks].
        n_drop: How many go.
    """
    return influence.cpu().argsort(stable=True)[:n_drop].sort().values


def run_of(ends: torch.Tensor, n_drop: int) -> torch.Tensor:
    """Return the run of blocks that turns the last token's state least, int64 ascending.

    Args:
        ends: float32 [blocks + 1, samples, d], the last token's state before every block and after the last.
        n_drop: Length of the run.
    """
    cosines = torch.nn.functional.cosine_similarity(ends[:-n_drop], ends[n_drop:], dim=-1)
    angles = cosines.double().clamp(-1, 1).arccos().mean(dim=1)
    start = int(angles.argmin())
    return torch.arange(start, start + n_drop)


def influences(
    model: StreamedModel,
    states: Activations,
    skipped: Collection[int],
    block_done: Callable[[int], None],
) -> torch.Tensor:
    """Return 1 - mean cosine between the states before and after every block, [blocks]; 0 for those skipped."""
    turns = torch.zeros(len(model.blocks))
    before: list[torch.Tensor] = []

    def remember(_index: int, _block: nn.Module) -> None:
        before[:] = states.hidden

    def done(index: int) -> None:
        if index not in skipped:
            turns[index] = 1 - _mean_cosine(before, states.hidden)
        block_done(index)

    forward(model, states, done, remember, skipped)
    return turns


def _mean_cosine(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    total, tokens = 0.0, 0
    for first, last in zip(before, after, strict=True):
        cosines = nn.functional.cosine_similarity(first.float(), last.float(), dim=-1)
        total += float(cosines.double().sum())
        tokens += cosines.numel()
    return total / tokens


def last_states(
    model: StreamedModel, states: Activations, block_done: Callable[[int], None]
) -> torch.Tensor:
    """Return the last token's state before every block and after the last, float32 [blocks + 1, samples, d]."""
    ends = [_last(states)]

    def done(index: int) -> None:
        ends.append(_last(states))
        block_done(index)

    forward(model, states, done)
    return torch.stack(ends)


def _last(states: Activations) -> torch.Tensor:
    return torch.cat([hidden[:, -1].float().cpu() for hidden in states.hidden])
