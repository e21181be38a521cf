"""What both models are measured by: windows of texts and questions, read and tokenised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pruning_core.datasets.gate_metrics import check_gate
from pruning_core.datasets.tasks import evaluated
from pruning_core.spec.prune import PruneSpec
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
            task: questions_digest(asked) for task, asked in self.questions.items()
        }


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


def questions_digest(questions: Sequence[Encoded]) -> str:
    """Return sha256 of a task's token ids, with where continuations begin and which is right."""
    content = [
        (question.sequences, question.starts, question.answer, question.lengths)
        for question in questions
    ]
    return "sha256:" + hashlib.sha256(json.dumps(content).encode()).hexdigest()
