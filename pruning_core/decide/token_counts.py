"""What text needs of a vocabulary: how often each token occurs, which ones a chat template writes, what share of a text is kept."""

from __future__ import annotations

import ast
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jinja2
import torch

from pruning_core.evaluate.evaluation_set import EvaluationSet
from pruning_core.spec.report_parts.removal import VocabularyCoverage
from pruning_core.system.user_faults import blamed_on
from pruning_core.text.question_tokens import Encoded
from pruning_core.tokenizers.load import encoded

HELD = 1 << 18
"""Tokens that are counted at once: a count costs as much as the vocabulary is large."""
ROLES = ("system", "user", "assistant", "tool")
"""What templates put in for `message['role']`."""


def counted(rows: Iterable[Sequence[int]], size: int) -> torch.Tensor:
    """Return how often each token occurs, int64 [size]; no more than some rows are held at once."""
    counts, held = torch.zeros(size, dtype=torch.int64), array("q")
    for row in rows:
        held.extend(row)
        if len(held) >= HELD:
            counts += torch.bincount(torch.frombuffer(held, dtype=torch.int64), minlength=size)
            held = array("q")
    return counts + torch.bincount(torch.tensor(held), minlength=size) if held else counts


def template_ids(tokenizer: Any) -> set[int]:
    """Return the tokens of every piece of text that stands in the chat template, in whatever branch, and of the roles.

    Raises:
        ModelInvalid: the template cannot be read.
    """
    given = getattr(tokenizer, "chat_template", None) or {}
    templates = [given] if isinstance(given, str) else list(given.values())
    pieces = {piece for template in templates for piece in _literals(template)}
    spoken = {*pieces, *(ROLES if templates else ())}
    return {
        place
        for piece in spoken
        for place in encoded(tokenizer, piece, add_special_tokens=False)["input_ids"]
    }


def _literals(template: str) -> Iterator[str]:
    """Yield text outside of statements and the strings within them."""
    with blamed_on("the chat template cannot be read"):
        for _, kind, text in jinja2.Environment(autoescape=True).lex(template):
            if kind == "data":
                yield text
            elif kind == "string":
                yield str(ast.literal_eval(text.replace("\n", "\\n")))


def coverage(
    kept: Sequence[int], size: int, by: EvaluationSet, after: EvaluationSet | None
) -> tuple[VocabularyCoverage, ...]:
    """Return what share of each evaluated task's tokens stay in the vocabulary.

    Args:
        kept: Ids of the tokens that stay.
        size: Of the dense vocabulary.
        by: The tasks, as the dense model's tokenizer reads them.
        after: As the reduced one does; None where the tokenizer stays.
    """
    stays = torch.zeros(size, dtype=torch.bool)
    stays[list(kept)] = True
    return tuple(
        VocabularyCoverage(
            task=task,
            tokens=len(ids),
            kept=float(stays[ids].double().mean()),
            tokens_after=None if after is None else len(_ids(after, task)),
        )
        for task in (*by.texts, *by.questions)
        if len(ids := _ids(by, task))
    )


def _ids(by: EvaluationSet, task: str) -> torch.Tensor:
    """Return a task's token ids but the first of every row, which is given, int64 [tokens]."""
    if task in by.texts:
        return torch.cat([group[:, 1:].reshape(-1) for group in by.texts[task].groups])
    return torch.tensor([place for asked in by.questions[task] for place in _spoken(asked)])


def _spoken(asked: Encoded) -> Iterator[int]:
    for sequence in asked.sequences:
        yield from sequence[1:]
