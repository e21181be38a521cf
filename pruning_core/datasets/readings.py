"""Items as a model reads them: texts, turns of a conversation, and questions with a prompt for every choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pruning_core.datasets import declaration
from pruning_core.datasets.conversations import Turn
from pruning_core.datasets.declaration import Declaration
from pruning_core.datasets.items import ChoiceItem, TextItem
from pruning_core.datasets.tasks import Data


@dataclass(frozen=True)
class Question:
    """A multiple-choice item as the model reads it: one prompt and one continuation per choice."""

    where: str
    prompts: tuple[str, ...]
    continuations: tuple[str, ...]
    answer: int


def questions(data: Data) -> list[Question]:
    """Return the items of a multiple-choice task, rendered.

    Raises:
        DatasetInvalid: a template does not fit an item; the message names file and line.
    """
    declared = data.task.declaration
    return [
        _question(declared, item, at) for at, item in data.items if isinstance(item, ChoiceItem)
    ]


def readings(data: Data, *, answers: bool) -> Iterator[TextItem]:
    """Yield every item as a text: itself, or a prompt with its right answer or without, in turns that a chat template takes."""
    if data.task.kind == "text":
        yield from (item for _, item in data.items if isinstance(item, TextItem))
        return
    for prompt, answer in map(_right, questions(data)):
        question, answer_turn = Turn("user", prompt), Turn("assistant", answer.strip())
        if answers:
            yield TextItem(prompt + answer, (question, answer_turn))
        else:
            yield TextItem(prompt, (question,))


def _question(declared: Declaration, item: ChoiceItem, where: str) -> Question:
    pairs = declaration.rendered(declared, item.fields, item.choices, where)
    return Question(
        where, tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs), item.answer
    )


def _right(question: Question) -> tuple[str, str]:
    return question.prompts[question.answer], question.continuations[question.answer]
