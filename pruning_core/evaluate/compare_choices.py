"""Accuracy of both models over the same questions: what was lost and gained, and by how much chance."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from statistics import fmean

from pruning_core.evaluate import intervals
from pruning_core.evaluate.evaluation_set import EvaluationSet, questions_digest
from pruning_core.evaluate.measure import Measured
from pruning_core.evaluate.multiple_choice import accuracy
from pruning_core.spec.report_parts.quality import Accuracy, Score
from pruning_core.text.question_tokens import Encoded


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
            digest=questions_digest(asked),
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
