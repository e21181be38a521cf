"""Which tokens stay, by how often they occur in the calibration text."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch

from pruning_core.decide import token_counts
from pruning_core.decide.dense_model import DenseModel
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.calibration import SELF_TASK
from pruning_core.text.calibration_text import every_item
from pruning_core.text.task_reader import TaskReader
from pruning_core.tokenizers.companions import write_companions
from pruning_core.tokenizers.kept import kept_ids
from pruning_core.tokenizers.load import load_tokenizer
from pruning_core.tokenizers.renumber import renumbered


def without_tokens(dense: DenseModel, frequent: Callable[[torch.Tensor], torch.Tensor]) -> UnitPlan:
    """Return the plan that keeps the frequent tokens, those that must stay, and more where less is to go.

    Args:
        dense: The dense model and its calibration text.
        frequent: (counts int64 [vocabulary]) -> bool [vocabulary], the tokens that are frequent enough.

    Raises:
        ModelInvalid: the tokenizer, or what names its ids, cannot be renumbered.
    """
    plan, tokens = dense.plan, _tokens(dense, frequent)
    if plan.removing:
        # What the walk's end would stumble over comes to light before its start
        renumbered(dense.facts.config, tokens)
        dense.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=dense.work) as folder:
            write_companions(dense.source, Path(folder), tokens)
    return replace(plan, vocabulary=tokens, sizes=replace(plan.sizes, vocabulary=len(tokens)))


def _tokens(dense: DenseModel, frequent: Callable[[torch.Tensor], torch.Tensor]) -> tuple[int, ...]:
    counts, folder = _counts(dense), dense.source
    often = frequent(counts).nonzero().flatten().tolist()
    spoken = token_counts.template_ids(load_tokenizer(folder))
    tokens = kept_ids(folder, [*often, *spoken])
    room = _room(dense)
    if room is not None and len(tokens) < room:
        there = set(tokens)
        rest = [token for token in _by_frequency(counts) if token not in there]
        tokens = kept_ids(folder, [*tokens, *rest[: room - len(tokens)]])
    return tokens


def _counts(dense: DenseModel) -> torch.Tensor:
    """Return how often each token occurs in all calibration text that was read, and in the samples at least."""
    size = dense.facts.vocab_size
    sampled = token_counts.counted(
        (row for group in dense.windows.groups for row in group.tolist()), size
    )
    if dense.reader is None:
        return sampled
    return torch.maximum(sampled, token_counts.counted(_every_item(dense, dense.reader), size))


def _every_item(dense: DenseModel, reader: TaskReader) -> Iterator[list[int]]:
    """Yield the tokens of every item of the tasks that calibrate, and tell how many are done."""
    spec = dense.spec.calibration
    names = [task.name for task in spec.tasks if task.name != SELF_TASK]
    total = sum(len(dense.data_used.split(name, "calibration").items) for name in names)
    dense.tracker.begin("calibrating", total, unit="item", key="counting")
    rows = chain.from_iterable(every_item(reader, name, spec) for name in names)
    for done, row in enumerate(rows, start=1):
        yield row
        dense.tracker.step(done)


def _room(dense: DenseModel) -> int | None:
    """Return how many tokens may stay at least, where the job names how much goes in all."""
    if dense.spec.sparsity is None and dense.spec.budget is None:
        return None
    target, whole = dense.target, dense.layout.sizes
    each = target.weigh(whole) - target.weigh(replace(whole, vocabulary=whole.vocabulary - 1))
    return whole.vocabulary - (target.weigh(whole) - target.size) // each


def _by_frequency(counts: torch.Tensor) -> list[int]:
    """Return all token ids, the most frequent first, of equals the lower: tokenizers learn frequent tokens early."""
    order: list[int] = counts.argsort(stable=True, descending=True).tolist()
    return order
