"""Both models by the same yardstick: losses of texts, log-likelihoods of choices, and what the report says of the two."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch

from pruning_core.datasets.gate_metrics import check_gate
from pruning_core.datasets.tasks import evaluated
from pruning_core.evaluate import intervals
from pruning_core.evaluate.intervals import Figures
from pruning_core.evaluate.multiple_choice import accuracy, score
from pruning_core.evaluate.perplexity import exp_mean, token_losses
from pruning_core.model.streamed import StreamedModel
from pruning_core.spec.evaluation import Gate
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Accuracy, GateReport, Interval, Perplexity, Score
from pruning_core.system.progress import Tracker
from pruning_core.text.evaluation_text import evaluation_questions, evaluation_windows, same_texts
from pruning_core.text.question_tokens import Encoded
from pruning_core.text.task_reader import TaskReader
from pruning_core.text.windows import Windows


@dataclass(frozen=True)
class EvaluationSet:
    """What both models are measured by, per task."""

    texts: Mapping[str, Windows]
    questions: Mapping[str, Sequence[Encoded]]

    @property
    def tokens(self) -> int:
        """How many tokens one measurement reads."""
        asked = sum(question.size for task in self.questions.values() for question in task)
        return asked + sum(windows.tokens for windows in self.texts.values())

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of each task's token ids."""
        return {task: windows.digest for task, windows in self.texts.items()} | {
            task: _digest(asked) for task, asked in self.questions.items()
        }


@dataclass(frozen=True)
class Measured:
    """One model's losses per token and log-likelihoods per choice, per task."""

    losses: Mapping[str, list[torch.Tensor]]
    scores: Mapping[str, list[list[float]]]


def evaluation_set(spec: PruneSpec, reader: TaskReader) -> EvaluationSet:
    """Return what a specification evaluates, read and tokenised."""
    names = evaluated(spec, reader.data_used.files) if spec.evaluation.harness == "secateur" else ()
    kinds = {name: reader.data_used.find(name).kind for name in names}
    for gate in spec.gates:
        check_gate(gate, kinds[gate.task])
    return EvaluationSet(
        {
            name: evaluation_windows(reader, name, spec.evaluation)
            for name in names
            if kinds[name] == "text"
        },
        {
            name: evaluation_questions(reader, name, spec.evaluation)
            for name in names
            if kinds[name] == "multiple_choice"
        },
    )


def renumbered(
    by: EvaluationSet, spec: PruneSpec, before: Any, reader: TaskReader
) -> EvaluationSet:
    """Return the same evaluation set for a model that numbers its tokens otherwise.

    Args:
        by: Of the dense model.
        spec: What is evaluated.
        before: The dense model's tokenizer.
        reader: The other model's, over the same data.
    """
    return EvaluationSet(
        {task: same_texts(reader, windows, before) for task, windows in by.texts.items()},
        {task: evaluation_questions(reader, task, spec.evaluation) for task in by.questions},
    )


def measure(model: StreamedModel, by: EvaluationSet, tracker: Tracker, key: str) -> Measured:
    """Measure one model; `key` names its share of the progress."""
    tracker.begin("evaluating", by.tokens, unit="token", key=key)
    read = 0
    losses, scores = {}, {}
    for task, windows in by.texts.items():
        part_done = functools.partial(_part_done, tracker, read, windows.tokens)
        losses[task] = token_losses(model, windows.groups, part_done, alive=tracker.alive)
        read += windows.tokens
    for task, asked in by.questions.items():
        size = sum(question.size for question in asked)
        part_done = functools.partial(_part_done, tracker, read, size)
        scores[task] = score(model, asked, part_done, alive=tracker.alive)
        read += size
    return Measured(losses, scores)


def _part_done(tracker: Tracker, before: int, size: int, share: float) -> None:
    """Note that a share of one task's tokens have gone through all blocks, or all of them through a share of the blocks."""
    tracker.step(before + int(share * size + 1e-6))


def perplexities(
    by: EvaluationSet,
    dense: Measured | None,
    pruned: Measured,
    by_pruned: EvaluationSet | None = None,
) -> tuple[Perplexity, ...]:
    """Return every text task's perplexity before and after.

    Args:
        by: The dense model's evaluation set.
        dense: What they found; None where it was not measured.
        pruned: Of the pruned model.
        by_pruned: Its own evaluation set, where it numbers its tokens otherwise: its loss is then spread over the dense
            model's tokens of the same text, so that both perplexities are per token of the same kind.
    """
    return tuple(
        _perplexity(
            task,
            windows,
            dense.losses[task] if dense else None,
            pruned.losses[task],
            by_pruned.texts[task] if by_pruned else None,
        )
        for task, windows in by.texts.items()
    )


def _perplexity(
    task: str,
    windows: Windows,
    dense: list[torch.Tensor] | None,
    pruned: list[torch.Tensor],
    other: Windows | None,
) -> Perplexity:
    units = _units(windows) if other is None else _units_of_rows(windows, windows)
    tokens = np.bincount(units).astype(np.float64)
    after = _per_unit(pruned, units if other is None else _units_of_rows(other, windows))
    found = Perplexity(
        task=task,
        windows=windows.samples,
        seq_len=windows.seq_len,
        tokens=len(units),
        dense=None,
        pruned=exp_mean(pruned) if other is None else math.exp(after.sum() / len(units)),
        bits_per_byte_pruned=_bits_per_byte(after, windows),
        pruned_interval=intervals.perplexity_interval(after, tokens),
        resampled="windows" if windows.units is None else "documents",
        units=len(tokens),
        digest=windows.digest,
    )
    if dense is None:
        return found
    before = _per_unit(dense, units)
    perplexity = exp_mean(dense)
    return found.model_copy(
        update={
            "dense": perplexity,
            "bits_per_byte_dense": _bits_per_byte(before, windows),
            "dense_interval": intervals.perplexity_interval(before, tokens),
            "ratio": found.pruned / perplexity,
            "ratio_interval": intervals.ratio_interval(before, after, tokens),
        }
    )


def _units(windows: Windows) -> torch.Tensor:
    """Return the unit of every predicted token, numbered from 0, in the order of the losses: its document, or its window."""
    if windows.units is None:
        return _units_of_rows(windows, windows)
    return _numbered(windows.units[:, 1:].reshape(-1))


def _units_of_rows(rows: Windows, windows: Windows) -> torch.Tensor:
    """Return the same where every row counts as a whole: to the document that most of its window's tokens belong to.

    Args:
        rows: The windows, or the same as another tokenizer reads them.
        windows: What the rows are parts of.
    """
    lengths = [group.shape[1] - 1 for group in rows.groups for _ in group]
    owners = torch.tensor(rows.owners or range(len(lengths)))
    if windows.units is not None:
        owners = _numbered(windows.units.mode(dim=1).values)[owners]
    return owners.repeat_interleave(torch.tensor(lengths))


def _numbered(names: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.unique(names.numpy(), return_inverse=True)[1])


def _per_unit(losses: Sequence[torch.Tensor], units: torch.Tensor) -> Figures:
    flat = torch.cat(list(losses)).numpy()
    return np.bincount(units, weights=flat).astype(np.float64)


def _bits_per_byte(sums: Figures, windows: Windows) -> float | None:
    return float(sums.sum()) / math.log(2) / windows.text_bytes if windows.text_bytes else None


def accuracies(by: EvaluationSet, dense: Measured | None, pruned: Measured) -> tuple[Accuracy, ...]:
    """Return every multiple-choice task's accuracies before and after."""

    def scored(task: str, asked: Sequence[Encoded], *, normalised: bool) -> Score:
        judge = functools.partial(accuracy, asked, normalised=normalised)
        before = judge(dense.scores[task]) if dense else None
        return _score(before, judge(pruned.scores[task]))

    return tuple(
        Accuracy(
            task=task,
            items=len(asked),
            chance=fmean(1 / len(question.sequences) for question in asked),
            acc=scored(task, asked, normalised=False),
            acc_norm=scored(task, asked, normalised=True),
            digest=_digest(asked),
        )
        for task, asked in by.questions.items()
    )


def _score(dense: list[bool] | None, pruned: list[bool]) -> Score:
    items = len(pruned)
    after = Score(
        dense=None,
        pruned=sum(pruned) / items,
        pruned_interval=intervals.share_interval(sum(pruned), items),
    )
    if dense is None:
        return after
    lost = sum(was and not now for was, now in zip(dense, pruned, strict=True))
    gained = sum(now and not was for was, now in zip(dense, pruned, strict=True))
    return after.model_copy(
        update={
            "dense": sum(dense) / items,
            "dense_interval": intervals.share_interval(sum(dense), items),
            "lost": lost,
            "gained": gained,
            "p_value": _p_value(lost, gained, items),
        }
    )


def _p_value(lost: int, gained: int, items: int) -> float | None:
    return intervals.mcnemar(lost, gained) if items >= intervals.FEWEST_ITEMS else None


Figure = tuple[float, Interval | None]


def gates(
    asked: Iterable[Gate], texts: Iterable[Perplexity], choices: Iterable[Accuracy]
) -> tuple[GateReport, ...]:
    """Return what became of every gate."""
    figures: dict[str, Figure] = {}
    for text in texts:
        figures |= _text_figures(text)
    for choice in choices:
        figures |= _choice_figures(choice)
    return tuple(_gate(gate, *figures[gate.metric]) for gate in asked)


def _text_figures(text: Perplexity) -> dict[str, Figure]:
    found: dict[str, Figure] = {f"{text.task}.ppl": (text.pruned, text.pruned_interval)}
    if text.ratio is not None:
        found[f"{text.task}.ppl_ratio"] = (text.ratio, text.ratio_interval)
    return found


def _choice_figures(choice: Accuracy) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for name, one in (("acc", choice.acc), ("acc_norm", choice.acc_norm)):
        found[f"{choice.task}.{name}"] = (one.pruned, one.pruned_interval)
        if one.dense is not None:
            found[f"{choice.task}.{name}_drop"] = (one.dense - one.pruned, None)
    return found


def _gate(gate: Gate, value: float, interval: Interval | None) -> GateReport:
    low = gate.min is None or value >= gate.min
    high = gate.max is None or value <= gate.max
    return GateReport(
        metric=gate.metric,
        min=gate.min,
        max=gate.max,
        value=value,
        passed=low and high,
        interval=interval,
    )


def _digest(asked: Sequence[Encoded]) -> str:
    content = [(one.sequences, one.starts, one.answer, one.lengths) for one in asked]
    return "sha256:" + hashlib.sha256(json.dumps(content).encode()).hexdigest()
