"""DIET: Hong, Kim, arXiv 2603.23985; a reconstruction, only the abstract and digests were readable.

profile  A_t [L+1, d]  mean over a task's samples of the mean over tokens of |hidden state|, at the embeddings and after
                       every block
         A = A_t / its mean over d, row by row;   I_t = largest of A over the rows
vote     each task names its n lowest dimensions (the lower index where equal)
drop     the n dimensions with most votes; equal votes: the lower mean rank over the tasks; then the lower index

A strict majority reaches no target (of seven independent masks at 20 % it takes 3 % of the dimensions); the rule above equals
it wherever the counts agree. `vote_strict` is the strict one.
With `granularity: units` the same vote is taken over the channels of a read-out's input, summed per unit, in every block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pruning_core.spec.unit_methods import Diet


def importance(profile: torch.Tensor, params: Diet) -> torch.Tensor:
    """Return one task's importance of every dimension, [d].

    Args:
        profile: float32 [rows, d], one row per place in the network.
        params: How rows are normalised and reduced.
    """
    rows = profile
    if params.layer_norm == "mean":
        rows = rows / rows.mean(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return rows.mean(dim=0) if params.layer_reduce == "mean" else rows.max(dim=0).values


def merged(importances: Sequence[torch.Tensor], n_drop: int, params: Diet) -> torch.Tensor:
    """Return the dimensions that go, int64 ascending.

    Args:
        importances: [d] of every task.
        n_drop: How many each task names, and how many go; fewer may with `vote_strict`.
        params: How tasks are merged.
    """
    stacked = torch.stack(list(importances)).double().cpu()
    if params.merge == "mean_score":
        return stacked.mean(dim=0).argsort(stable=True)[:n_drop].sort().values
    ranks = stacked.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    votes = (ranks < n_drop).sum(dim=0)
    if params.merge == "vote_strict":
        return (votes * 2 > len(stacked)).nonzero().flatten()
    by_rank = ranks.double().mean(dim=0).argsort(stable=True)
    by_votes = votes[by_rank].argsort(stable=True, descending=True)
    return by_rank[by_votes][:n_drop].sort().values
