"""Text to token windows: tokenised once, cut without overlap, drawn with the seed, digested."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from pruning_core.errors import DatasetTooSmall, ModelInvalid, TokensInvalid
from pruning_core.intake.checkpoint import CheckpointFacts
from pruning_core.intake.tasks import Split, documents, find
from pruning_core.spec.calibration import (
    DEFAULT_SAMPLES,
    DEFAULT_SEQ_LEN,
    Calibration,
    CalibrationTask,
)
from pruning_core.spec.evaluation import Evaluation
from pruning_core.spec.report import CalibrationReport

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Windows:
    """Token windows of one or more tasks.

    Attributes:
        tokens: int64 [windows, seq].
        counts: Windows per task.
    """

    tokens: torch.Tensor
    counts: dict[str, int]

    @property
    def digest(self) -> str:
        """Return sha256 of shape and token ids."""
        data = self.tokens.contiguous()
        header = "x".join(map(str, data.shape)).encode()
        return "sha256:" + hashlib.sha256(header + data.numpy().tobytes()).hexdigest()

    def report(self, seed: int) -> CalibrationReport:
        """Return what the report says of them."""
        return CalibrationReport(
            tasks=self.counts,
            seq_len=self.tokens.shape[1],
            tokens=self.tokens.numel(),
            seed=seed,
            digest=self.digest,
        )


class Texts:
    """The model's tokenizer over the task catalogue.

    Args:
        folder: Hugging Face folder with the tokenizer.
        facts: Of that folder.
        tasks_dir: The operator's tasks, or None.
    """

    def __init__(self, folder: Path, facts: CheckpointFacts, tasks_dir: Path | None) -> None:
        self._folder = folder
        self._facts = facts
        self._tasks_dir = tasks_dir
        self._tokenizer: Any = None

    def calibration(self, spec: Calibration, *, held_out: int = 0) -> tuple[Windows, Windows]:
        """Return the calibration windows of every task, task after task, and as many others as `held_out` asks for.

        The others come from the same split of the same tasks, in equal shares; no window is in both.

        Raises:
            DatasetTooSmall: a task's text fills fewer windows than were asked for.
        """
        length = self._length(spec.seq_len)
        share = -(-held_out // len(spec.tasks))
        drawn = {task.name: self._draw(task, length, spec.seed, share) for task in spec.tasks}
        return _joined(drawn, 0), _joined(drawn, 1)

    def evaluation(self, task: str, spec: Evaluation) -> Windows:
        """Return the first windows of a task's evaluation split."""
        windows = self._cut(task, "eval", self._length(spec.seq_len))
        tokens = windows[: spec.windows]
        return Windows(tokens, {task: len(tokens)})

    def _draw(
        self, task: CalibrationTask, length: int, seed: int, held_out: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        windows = self._cut(task.name, "calibration", length)
        room = len(windows) - held_out
        count = min(DEFAULT_SAMPLES, room) if task.samples is None else task.samples
        if count > room or count < 1:
            beside = f" beside {held_out} held out for the search" if held_out else ""
            raise DatasetTooSmall(
                f"Task {task.name!r} fills {len(windows)} windows of {length} tokens; {count} were asked for{beside}.",
                suggestions=(f"ask for at most {room} samples", "use a shorter seq_len"),
            )
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
        return windows[order[:count]], windows[order[count : count + held_out]]

    def _cut(self, task: str, split: Split, length: int) -> torch.Tensor:
        text = SEPARATOR.join(documents(find(task, self._tasks_dir), split))
        ids = torch.tensor(self._encode(text), dtype=torch.int64)
        if len(ids) < length:
            raise DatasetTooSmall(
                f"The {split} split of task {task!r} has {len(ids)} tokens, less than one window of {length}.",
                suggestions=("use a shorter seq_len", "choose another task"),
            )
        return ids[: len(ids) // length * length].view(-1, length)

    def _encode(self, text: str) -> list[int]:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._folder)
        ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        if ids and max(ids) >= self._facts.vocab_size:
            raise ModelInvalid("the tokenizer produces ids beyond the model's vocabulary")
        return ids

    def _length(self, asked: int | None) -> int:
        limit = self._facts.max_positions
        if asked is not None and asked > limit:
            raise TokensInvalid(
                f"seq_len is {asked}, the model takes windows of at most {limit} tokens"
            )
        return asked or min(DEFAULT_SEQ_LEN, limit)


def _joined(drawn: dict[str, tuple[torch.Tensor, torch.Tensor]], part: int) -> Windows:
    counts = {name: len(both[part]) for name, both in drawn.items()}
    return Windows(torch.cat([both[part] for both in drawn.values()]), counts)


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's tokenizer.

    Raises:
        ModelInvalid: there is none that stock transformers can read.
    """
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ModelInvalid(f"the tokenizer of {folder.name} cannot be read: {error}") from error


def checked_tokens(tokens: torch.Tensor, facts: CheckpointFacts) -> torch.Tensor:
    """Return calibration tokens given by the caller.

    Raises:
        TokensInvalid: not int64 [samples, seq], empty, too long, or an id beyond the vocabulary.
    """
    if tokens.dtype != torch.int64 or tokens.ndim != 2 or tokens.numel() == 0:
        raise TokensInvalid("tokens must be a non-empty int64 tensor of shape [samples, seq_len]")
    if tokens.shape[1] > facts.max_positions:
        raise TokensInvalid(
            f"windows of {tokens.shape[1]} tokens; the model takes at most {facts.max_positions}"
        )
    if int(tokens.min()) < 0 or int(tokens.max()) >= facts.vocab_size:
        raise TokensInvalid(f"token ids must lie in [0, {facts.vocab_size})")
    return tokens.cpu()
