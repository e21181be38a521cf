"""What the dense model shows of its units before any goes: hidden states, turns of whole blocks, scores within blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import nn

from pruning_core.model.attention_divergence import head_divergence
from pruning_core.model.candidates import candidates
from pruning_core.model.hidden_states import Activations, Batch
from pruning_core.model.matrix import input_groups
from pruning_core.model.recorder import record
from pruning_core.model.streamed import StreamedModel
from pruning_core.model.unit_groups import unit_groups
from pruning_core.numerics.statistics import Stats
from pruning_core.plans.unit import UnitScore
from pruning_core.prune.walk import forward
from pruning_core.spec.unit_methods import Diet
from pruning_core.structure.layout import Layout

BlockDone = Callable[[int], None]


def profiles(
    model: StreamedModel,
    tasks: Mapping[str, Sequence[torch.Tensor]],
    params: Diet,
    begin: int | None,
    batch_tokens: int,
    block_done: BlockDone,
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
    batches: list[Batch] = []
    owners: list[str] = []
    for task, groups in tasks.items():
        for group in groups:
            for part in torch.split(group, max(1, batch_tokens // group.shape[1])):
                batches.append(Batch(part))
                owners.append(task)
    states = Activations(model, batches, alive=alive)
    sums: dict[str, list[torch.Tensor]] = {task: [] for task in tasks}
    counts = {task: sum(len(group) for group in groups) for task, groups in tasks.items()}

    def note() -> None:
        row = {task: torch.zeros(states.hidden[0].shape[-1]) for task in tasks}
        for batch, owner, hidden in zip(states.batches, owners, states.hidden, strict=True):
            row[owner] += (
                _sample_means(hidden.float(), batch.tokens, params, begin).sum(dim=0).cpu()
            )
        for task, total in row.items():
            sums[task].append(total / counts[task])

    def done(index: int) -> None:
        note()
        block_done(index)

    note()
    forward(model, states, done)
    return {task: torch.stack(rows) for task, rows in sums.items()}


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


def influences(
    model: StreamedModel, states: Activations, skipped: Collection[int], block_done: BlockDone
) -> torch.Tensor:
    """Return 1 - mean cosine between the states before and after every block, [blocks]; 0 for those skipped."""
    found = torch.zeros(len(model.blocks))
    before: list[torch.Tensor] = []

    def remember(_index: int, _block: nn.Module) -> None:
        before[:] = states.hidden

    def done(index: int) -> None:
        if index not in skipped:
            found[index] = 1 - _mean_cosine(before, states.hidden)
        block_done(index)

    forward(model, states, done, remember, skipped)
    return found


def _mean_cosine(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    total, tokens = 0.0, 0
    for first, last in zip(before, after, strict=True):
        cosines = nn.functional.cosine_similarity(first.float(), last.float(), dim=-1)
        total += float(cosines.double().sum())
        tokens += cosines.numel()
    return total / tokens


def last_states(model: StreamedModel, states: Activations, block_done: BlockDone) -> torch.Tensor:
    """Return the last token's state before every block and after the last, float32 [blocks + 1, samples, d]."""
    found = [_last(states)]

    def done(index: int) -> None:
        found.append(_last(states))
        block_done(index)

    forward(model, states, done)
    return torch.stack(found)


def _last(states: Activations) -> torch.Tensor:
    return torch.cat([hidden[:, -1].float().cpu() for hidden in states.hidden])


Scored = dict[tuple[int, str], torch.Tensor]
"""Scores [size] by block and group name."""


def dense_scores(
    model: StreamedModel,
    layout: Layout,
    states: Activations,
    score: UnitScore,
    kinds: Collection[str],
    block_done: BlockDone,
) -> Scored:
    """Return the scores of every group of units on the dense model.

    Args:
        model: The dense model.
        layout: Of its checkpoint.
        states: Of the calibration windows at the first block; they end behind the last.
        score: The method.
        kinds: Units that are scored.
        block_done: Called with each block's index.
    """
    found: Scored = {}

    def visit(index: int, block: nn.Module) -> None:
        groups = input_groups(block, model.family, model.config)
        names = {one.name: one for group in groups for one in group.matrices}
        units = [one for one in unit_groups(names, model.family, layout) if one.kind in kinds]
        heads = None
        if score.params.compares_heads:
            heads = head_divergence(index, block, model.family, states, layout)
        readouts = {one.readout.name for one in units}
        writers = {writer.name for one in units for writer in one.writers}
        needs = [
            (score.needs if readouts & {one.name for one in group.matrices} else frozenset())
            | (score.input_needs if writers & {one.name for one in group.matrices} else frozenset())
            for group in groups
        ]
        asked = [pair for pair in zip(groups, needs, strict=True) if pair[1]]
        stats = []
        if asked:
            inputs, wanted = zip(*asked, strict=True)
            stats = record(index, block, inputs, states, wanted)
        at: dict[str, Stats] = {}
        for (group, _), seen in zip(asked, stats, strict=True):
            at |= {matrix.name: seen for matrix in group.matrices}
        for one in units:
            readout, writer = (
                at.get(m.name, Stats(tokens=0)) for m in (one.readout, one.writers[0])
            )
            found[index, one.name] = score.score(
                candidates(one, readout, writer, heads, index), score.params
            ).cpu()

    forward(model, states, block_done, visit)
    return found
