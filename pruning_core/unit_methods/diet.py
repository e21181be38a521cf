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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from pruning_core.decide.dense_model import DenseModel, Scores
from pruning_core.errors import SizeUnreachable
from pruning_core.model.hidden_states import Activations, Batch
from pruning_core.model.streamed import StreamedModel
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.walk import forward
from pruning_core.spec.unit_methods import Diet
from pruning_core.structure.spans import Sizes
from pruning_core.system import device as devices
from pruning_core.units.candidates import Candidates

NEEDS = ("column_mean_abs",)
INPUT_NEEDS: tuple[str, ...] = ()


def score(group: Candidates, params: Diet) -> torch.Tensor:
    """Return one task's importance of every unit, [size], for the granularity `units`."""
    return group.mean_sizes()


def decide(dense: DenseModel, params: Diet) -> UnitPlan:
    """Return the plan: one mask over residual dimensions, one per block, or units of every block."""
    if params.granularity == "units":
        return _of_units(dense, params)
    sizes = dense.target.solve(("hidden",))
    n_drop = dense.layout.sizes.hidden - sizes.hidden
    by_task = profiles(
        dense.model,
        dense.windows.by_task,
        params,
        dense.facts.config.get("bos_token_id"),
        devices.batch_tokens(dense.model.device),
        dense.progress(),
        dense.tracker.alive,
    ).values()
    if params.granularity == "per_layer":
        masks = tuple(
            merged([importance(rows[[index]], params) for rows in by_task], n_drop, params)
            for index in range(dense.layout.sizes.layers)
        )
        return replace(dense.plan, sizes=sizes, hidden_by_block=masks)
    hidden = merged([importance(rows, params) for rows in by_task], n_drop, params)
    return replace(dense.plan, sizes=_sizes_of(dense, sizes, len(hidden)), hidden=hidden)


def _sizes_of(dense: DenseModel, sizes: Sizes, dropped: int) -> Sizes:
    """Return the sizes of what goes: a strict majority removes what it agrees on, however much that is."""
    left = dense.layout.sizes.hidden - dropped
    if left == sizes.hidden:
        return sizes
    if left not in dense.cutter.legal("hidden"):
        raise SizeUnreachable(
            f"A strict majority of the tasks names {dropped} of {dense.layout.sizes.hidden} residual dimensions; "
            f"stock transformers loads no model of the remaining {left}.",
            suggestions=(
                "use merge `vote`, which reaches the share asked for",
                "use `mode: zero`",
            ),
        )
    return replace(sizes, hidden=left)


def _of_units(dense: DenseModel, params: Diet) -> UnitPlan:
    """Vote over neurons and key-value groups, in every block, with each task's own text."""
    sizes = dense.target.solve(dense.kinds)
    tasks = dense.windows.by_task.values()
    done = dense.progress(len(tasks))
    votes: list[Scores] = [
        dense.scores(states=dense.states(groups), block_done=done) for groups in tasks
    ]
    chosen = {
        key: merged([task[key] for task in votes], n_drop, params)
        for key in votes[0]
        if (n_drop := dense.n_drop(key[1], sizes))
    }
    return replace(dense.plan, sizes=sizes, inner=chosen)


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


def profiles(
    model: StreamedModel,
    tasks: Mapping[str, Sequence[torch.Tensor]],
    params: Diet,
    begin: int | None,
    batch_tokens: int,
    block_done: Callable[[int], None],
    alive: Callable[[], None],
) -> dict[str, torch.Tensor]:
    """Return each task's mean size of every residual dimension, float32 [blocks + 1, d], in one forward pass.

    Args:
        model: The dense model.
        tasks: int64 [samples, seq] tensors of every task.
        params: The statistic, and whether the first token counts.
        begin: The configuration's first token, which may not count.
        batch_tokens: Tokens per forward pass.
        block_done: Called with each block's index.
        alive: Called after every batch.
    """
    batches, owners = _batches(tasks, batch_tokens)
    states = Activations(model, batches, alive=alive)
    rows: dict[str, list[torch.Tensor]] = {task: [] for task in tasks}
    samples = {task: sum(map(len, groups)) for task, groups in tasks.items()}

    def note() -> None:
        sums = {task: torch.zeros(states.hidden[0].shape[-1]) for task in tasks}
        for batch, owner, hidden in zip(states.batches, owners, states.hidden, strict=True):
            means = _sample_means(hidden.float(), batch.tokens, params, begin)
            sums[owner] += means.sum(dim=0).cpu()
        for task, total in sums.items():
            rows[task].append(total / samples[task])

    def done(index: int) -> None:
        note()
        block_done(index)

    note()
    forward(model, states, done)
    return {task: torch.stack(of_task) for task, of_task in rows.items()}


def _batches(
    tasks: Mapping[str, Sequence[torch.Tensor]], batch_tokens: int
) -> tuple[list[Batch], list[str]]:
    """Return all samples in batches of one task each, and the task of each batch."""
    batches, owners = [], []
    for task, groups in tasks.items():
        for group in groups:
            for part in torch.split(group, max(1, batch_tokens // group.shape[1])):
                batches.append(Batch(part))
                owners.append(task)
    return batches, owners


def _sample_means(
    hidden: torch.Tensor, tokens: torch.Tensor, params: Diet, begin: int | None
) -> torch.Tensor:
    """Return each sample's mean over its tokens, [samples, d]."""
    counted = torch.ones(tokens.shape, device=hidden.device)
    if params.bos == "drop" and begin is not None and tokens.shape[1] > 1:
        counted[:, 0] = (tokens[:, 0] != begin).to(counted)
    sizes = hidden.abs() if params.statistic == "mean_abs" else hidden.square()
    means = torch.einsum("ns,nsd->nd", counted, sizes) / counted.sum(dim=1, keepdim=True)
    return means if params.statistic == "mean_abs" else means.sqrt()
