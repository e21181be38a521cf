"""A run's tasks as one model's tokens: the items of a split as texts and as rows of ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.datasets.data_used import DataUsed
from pruning_core.datasets.items import TextItem
from pruning_core.datasets.readings import readings
from pruning_core.datasets.tasks import Data
from pruning_core.errors import ModelInvalid, TokensInvalid
from pruning_core.families import family_of
from pruning_core.spec.calibration import DEFAULT_SEQ_LEN, Calibration
from pruning_core.text.chat_template import conversation_text, conversation_tokens
from pruning_core.tokenizers.load import beginning, encoded, load_tokenizer

SelfGenerated = Callable[[int, int, int], Iterable[torch.Tensor]]
"""Samples a model: count, length and seed to int64 [length] each."""
SEPARATOR = "\n\n"
"""Between two items of a task that are joined."""
BYTES_PER_TOKEN = 16
"""More than any tokenizer needs on average: how much is read of a corpus that has no end."""


def _samples_nothing(_count: int, _length: int, _seed: int) -> Iterable[torch.Tensor]:
    raise AssertionError("this reader was given no model to sample text from")


class TaskReader:
    """Reads tasks with one model's tokenizer.

    Args:
        folder: Hugging Face folder with the tokenizer.
        facts: Of that folder.
        data_used: What the run reads of its tasks.
        self_generated: Samples the dense model for the task `self`; left out where nobody asks for it.

    Attributes:
        data_used: What the run reads of its tasks.
        self_generated: Samples the dense model.
    """

    def __init__(
        self,
        folder: Path,
        facts: CheckpointFacts,
        data_used: DataUsed,
        self_generated: SelfGenerated = _samples_nothing,
    ) -> None:
        self._folder = folder
        self._facts = facts
        self.data_used = data_used
        self.self_generated = self_generated

    @cached_property
    def tokenizer(self) -> Any:
        """The model's own."""
        return load_tokenizer(self._folder)

    @property
    def max_positions(self) -> int:
        """Most tokens that the model reads at once."""
        return self._facts.max_positions

    def texts(self, data: Data, *, answers: bool = True) -> list[str]:
        """Return every item as one text; conversations as the chat template writes them, where there is one."""
        talks = self._talks(data)
        return [
            conversation_text(self.tokenizer, item) if talks and item.turns else item.text
            for item in readings(data, answers=answers)
        ]

    def token_rows(self, data: Data, spec: Calibration) -> Iterator[list[int]]:
        """Yield every item's tokens; conversations always go through the chat template, where there is one."""
        talks = self._talks(data)
        for item in readings(data, answers=spec.answers):
            if spec.chat_template or (talks and item.turns):
                yield self.known(conversation_tokens(self.tokenizer, item))
            else:
                yield self.encode(item.text)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            ModelInvalid: the tokenizer fails, or makes ids that the model has not.
        """
        return self.known(encoded(self.tokenizer, text)["input_ids"])

    def known(self, ids: list[int]) -> list[int]:
        """Return ids of the tokenizer, each known to the model.

        Raises:
            ModelInvalid: an id is beyond the vocabulary.
        """
        if ids and max(ids) >= self._facts.vocab_size:
            raise ModelInvalid("the tokenizer produces ids beyond the model's vocabulary")
        return ids

    def window_length(self, asked: int | None) -> int:
        """Return the tokens of a window: as asked for, else the default, or the model's limit where that is smaller.

        Raises:
            TokensInvalid: more than the model reads.
        """
        limit = self.max_positions
        if asked is not None and asked > limit:
            raise TokensInvalid(
                f"seq_len is {asked}, the model takes windows of at most {limit} tokens"
            )
        return asked or min(DEFAULT_SEQ_LEN, limit)

    def window_beginning(self, asked: bool | None) -> int | None:
        """Return the token that every window begins with, if any; unasked, what suits the model's family.

        Raises:
            ModelInvalid: one was asked for and the tokenizer has none.
        """
        begin = beginning(self.tokenizer)
        if asked is None:
            return begin if family_of(self._facts.model_type).begins_windows else None
        if asked and begin is None:
            raise ModelInvalid(
                "the tokenizer begins no text with a token of its own",
                suggestions=("leave `bos` out",),
            )
        return begin if asked else None

    def _talks(self, data: Data) -> bool:
        """Tell whether conversations are among the items and the tokenizer has a template for them."""
        talks = any(isinstance(item, TextItem) and item.turns for _, item in data.items)
        if talks and not self.tokenizer.chat_template:
            self.data_used.warn(
                f"Task {data.task.name!r} holds conversations and the tokenizer has no chat template: "
                "they were read as plain text, without roles."
            )
            return False
        return talks
