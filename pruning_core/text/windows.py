"""Text to tokens: joined and cut into windows, or one document or question per sample; drawn with the seed, digested."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch

from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.datasets.conversations import Turn
from pruning_core.datasets.data_used import Sources
from pruning_core.datasets.items import TextItem
from pruning_core.datasets.tasks import Data, questions, readings
from pruning_core.errors import DatasetTooSmall, ModelInvalid, TokensInvalid
from pruning_core.families import family_of
from pruning_core.spec.calibration import (
    DEFAULT_SAMPLES,
    DEFAULT_SEQ_LEN,
    SELF_TASK,
    Calibration,
    CalibrationTask,
)
from pruning_core.spec.evaluation import Evaluation
from pruning_core.spec.recovery import DEFAULT_SEQ_LEN as RECOVERY_SEQ_LEN
from pruning_core.spec.report import CalibrationReport
from pruning_core.text.question_tokens import Encoded, encode
from pruning_core.tokenizers.load import beginning, encoded, load_tokenizer

TRAINING_BYTES = 64 << 20
"""How much is read of a hub's corpus for recovery."""
T = TypeVar("T")
SelfGenerated = Callable[[int, int, int], Iterable[torch.Tensor]]
SEPARATOR = "\n\n"
BYTES_PER_TOKEN = 16
"""More than any tokenizer needs on average: how much is read of a corpus that has no end."""


@dataclass(frozen=True)
class Windows:
    """Samples of one or more tasks.

    Attributes:
        groups: int64 [samples, seq] each: samples of one length, the shortest first. Windows are all of one length.
        counts: Samples per task.
        units: int64 like the only group, the document that each token belongs to; None where all belong to one, or it is
            not known.
        text_bytes: Bytes of the predicted text, where it is evaluated.
        by_task: The same samples task by task, each grouped by length, where they calibrate.
        owners: The window of another tokenizer that each sample is part of, in the samples' order; empty where each
            sample stands for itself.
    """

    groups: tuple[torch.Tensor, ...]
    counts: dict[str, int]
    units: torch.Tensor | None = None
    text_bytes: int = 0
    by_task: Mapping[str, tuple[torch.Tensor, ...]] = field(default_factory=dict)
    owners: tuple[int, ...] = ()

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(len(group) for group in self.groups)

    @property
    def tokens(self) -> int:
        """How many they have together."""
        return sum(group.numel() for group in self.groups)

    @property
    def seq_len(self) -> int:
        """Of the longest sample."""
        return max((group.shape[1] for group in self.groups), default=0)

    @property
    def digest(self) -> str:
        """Return sha256 of shapes and token ids."""
        found = hashlib.sha256()
        for group in self.groups:
            found.update("x".join(map(str, group.shape)).encode())
            found.update(group.contiguous().numpy().tobytes())
        return "sha256:" + found.hexdigest()

    def report(self, seed: int) -> CalibrationReport:
        """Return what the report says of them."""
        return CalibrationReport(
            tasks=self.counts,
            seq_len=self.seq_len,
            tokens=self.tokens,
            seed=seed,
            digest=self.digest,
        )


class Texts:
    """The model's tokenizer over a run's data.

    Args:
        folder: Hugging Face folder with the tokenizer.
        facts: Of that folder.
        sources: The data.
        self_generated: Samples the dense model for the task `self`: count, length and seed to int64 [length] each.
            None where nobody asks for it.
    """

    def __init__(
        self,
        folder: Path,
        facts: CheckpointFacts,
        sources: Sources,
        self_generated: SelfGenerated | None = None,
    ) -> None:
        self._folder = folder
        self._facts = facts
        self._sources = sources
        self._self_generated = self_generated
        self._tokenizer: Any = None

    def calibration(
        self, spec: Calibration, *, held_out: int = 0, default: int = DEFAULT_SAMPLES
    ) -> tuple[Windows, Windows]:
        """Return the calibration samples of every task, task after task, and as many others as `held_out` asks for.

        The others come from the same split of the same tasks, in equal shares; no sample is in both.

        Args:
            spec: What to draw.
            held_out: How many others.
            default: Samples per task where the specification does not say.

        Raises:
            DatasetTooSmall: a task has fewer samples than were asked for.
        """
        length = self._length(spec.seq_len)
        share = -(-held_out // len(spec.tasks))
        drawn = {
            task.name: self._draw(task, spec, length, held_out=share, default=default)
            for task in spec.tasks
        }
        return _joined(drawn, 0), _joined(drawn, 1)

    def training(
        self, tasks: Sequence[str], seq_len: int | None, spec: Calibration
    ) -> torch.Tensor:
        """Return all full windows of the tasks' calibration splits, int64 [windows, seq].

        Args:
            tasks: Names.
            seq_len: Tokens per window; None for 512, or the model's limit where that is smaller.
            spec: Says of multiple-choice items whether their answers train, and of windows how they begin.

        Raises:
            DatasetTooSmall: a task does not fill one window.
        """
        length = self._length(seq_len or min(RECOVERY_SEQ_LEN, self._facts.max_positions))
        found = []
        for task in tasks:
            if task == SELF_TASK:
                assert self._self_generated is not None
                found += list(self._self_generated(DEFAULT_SAMPLES, length, spec.seed))
                continue
            data = self._sources.data(task, "calibration", limit_bytes=TRAINING_BYTES)
            parts = self._texts(data, answers=spec.answers)
            found += list(self._cut(parts, length, spec.bos, f"Task {task!r}").tokens)
        return torch.stack(found)

    def every_item(self, task: str, spec: Calibration) -> Iterator[list[int]]:
        """Yield the tokens of every item of a task's calibration split that was read, whatever samples were drawn of it."""
        data = self._sources.data(task, "calibration")
        if spec.layout == "rows":
            yield from self._rows(data, spec)
        else:
            for text in self._texts(data, answers=spec.answers):
                yield self._encode(text + SEPARATOR)

    def windows(self, task: str, spec: Evaluation) -> Windows:
        """Return the first windows of a text task's evaluation split."""
        length = self._length(spec.seq_len)
        limit = spec.windows and spec.windows * length * BYTES_PER_TOKEN
        parts = self._texts(self._sources.data(task, "eval", limit_bytes=limit))
        cut = self._cut(parts, length, spec.bos, f"The eval split of task {task!r}")
        tokens = cut.tokens[: spec.windows]
        units = cut.units[: spec.windows] if cut.units is not None else None
        if units is not None and len(set(units.flatten().tolist())) == 1:
            units = None
        size = sum(len(self.tokenizer.decode(row[1:]).encode()) for row in tokens)
        return Windows((tokens,), {task: len(tokens)}, units, text_bytes=size)

    def again(self, windows: Windows, before: Any) -> Windows:
        """Return the same texts as this tokenizer reads them, each in one row, or in several where the model's limit asks.

        Every token is predicted as often as it would be in one row. The first that a further row predicts is conditioned
        on less: on the token that begins windows, or where none does on the token before it.

        Args:
            windows: As another tokenizer reads them.
            before: That tokenizer.
        """
        begin, begin_before = beginning(self.tokenizer), beginning(before)
        rows: list[torch.Tensor] = []
        owners: list[int] = []
        for owner, row in enumerate(windows.groups[0]):
            leading = row[0] == begin_before
            text = before.decode(row[1:] if leading else row)
            ids = self._known(encoded(self.tokenizer, text, add_special_tokens=False)["input_ids"])
            parts = _parts(ids, begin if leading else None, self._facts.max_positions)
            rows += [torch.tensor([part]) for part in parts]
            owners += [owner] * len(parts)
        return Windows(tuple(rows), windows.counts, owners=tuple(owners))

    def questions(self, task: str, spec: Evaluation) -> list[Encoded]:
        """Return items of a multiple-choice task's evaluation split, spread evenly over all that there are."""
        asked = spread(questions(self._sources.data(task, "eval")), spec.items)
        return encode(self.tokenizer, asked, self._facts.max_positions)

    @property
    def tokenizer(self) -> Any:
        """The model's own."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._folder)
        return self._tokenizer

    def _draw(
        self,
        task: CalibrationTask,
        spec: Calibration,
        length: int,
        *,
        held_out: int,
        default: int,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        asked = spec.samples_of(task)
        wanted = (asked or default) + held_out
        if task.name == SELF_TASK:
            assert self._self_generated is not None
            samples = list(self._self_generated(wanted, length, spec.seed))
        else:
            samples = self._samples(task.name, spec, length, wanted)
        room = len(samples) - held_out
        count = min(default, room) if asked is None else asked
        if count > room or count < 1:
            beside = f" beside {held_out} held out for the search" if held_out else ""
            each = "one for each item" if spec.layout == "rows" else f"of {length} tokens"
            shorter = "the layout `packed`" if spec.layout == "rows" else "a shorter seq_len"
            raise DatasetTooSmall(
                f"Task {task.name!r} gives {len(samples)} samples, {each}; {count} were asked for{beside}.",
                suggestions=(f"ask for at most {room} samples", f"use {shorter}"),
            )
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(spec.seed))
        mixed = [samples[index] for index in order.tolist()]
        return mixed[:count], mixed[count : count + held_out]

    def _samples(self, task: str, spec: Calibration, length: int, count: int) -> list[torch.Tensor]:
        """Return all samples that a task's calibration split gives."""
        limit = count * length * BYTES_PER_TOKEN
        data = self._sources.data(task, "calibration", limit_bytes=limit)
        if spec.layout == "packed":
            parts = self._texts(data, answers=spec.answers)
            return list(self._cut(parts, length, spec.bos, f"Task {task!r}").tokens)
        rows = self._rows(data, spec)
        return [torch.tensor(row[:length]) for row in rows if len(row) > 1]

    def _rows(self, data: Data, spec: Calibration) -> Iterator[list[int]]:
        """Yield every item's tokens; conversations always go through the chat template, where there is one."""
        talks = self._talks(data)
        for item in readings(data, answers=spec.answers):
            chat = spec.chat_template or (talks and item.turns)
            yield self._conversation(item) if chat else self._encode(item.text)

    def _texts(self, data: Data, *, answers: bool = True) -> list[str]:
        """Return every item as one text; conversations as the chat template writes them, where there is one."""
        talks = self._talks(data)
        return [
            self._rendered(item, tokenize=False) if talks and item.turns else item.text
            for item in readings(data, answers=answers)
        ]

    def _talks(self, data: Data) -> bool:
        """Tell whether conversations are among the items and the tokenizer has a template for them."""
        talks = any(isinstance(item, TextItem) and item.turns for _, item in data.items)
        if talks and not self.tokenizer.chat_template:
            self._sources.warn(
                f"Task {data.task.name!r} holds conversations and the tokenizer has no chat template: "
                "they were read as plain text, without roles."
            )
            return False
        return talks

    def _conversation(self, item: TextItem) -> list[int]:
        if not self.tokenizer.chat_template:
            raise ModelInvalid(
                "the tokenizer has no chat template", suggestions=("leave chat_template off",)
            )
        return self._known(self._rendered(item, tokenize=True))

    def _rendered(self, item: TextItem, *, tokenize: bool) -> Any:
        """Return a conversation, or a text as its user's one turn, as the chat template writes it, as tokens or text.

        Raises:
            ModelInvalid: the template, which is a program of the model's maker, fails on it in whatever way.
        """
        messages = [turn._asdict() for turn in item.turns or (Turn("user", item.text),)]
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=tokenize, return_dict=False
            )
        except Exception as error:
            raise ModelInvalid(
                f"the tokenizer's chat template fails on an item: {type(error).__name__}: {error}",
                suggestions=("mend the template", "use data that is plain text"),
            ) from error

    def _cut(self, parts: Sequence[str], length: int, bos: bool | None, what: str) -> _Cut:
        """Return the windows of the joined text."""
        ids, units = self._joined_tokens(parts)
        begin = self._begin(bos)
        if begin is not None and ids[:1] == [begin]:
            ids, units = ids[1:], units[1:]
        content = length - (begin is not None)
        count = len(ids) // content
        if not count:
            raise DatasetTooSmall(
                f"{what} has {len(ids)} tokens, less than one window of {length}.",
                suggestions=("use a shorter seq_len", "choose another task"),
            )
        tokens = torch.tensor(ids[: count * content]).view(count, content)
        owners = torch.tensor(units[: count * content]).view(count, -1) if units else None
        if begin is not None:
            tokens = torch.cat([torch.full((count, 1), begin), tokens], dim=1)
            owners = torch.cat([owners[:, :1], owners], dim=1) if owners is not None else None
        return _Cut(tokens, owners)

    def _joined_tokens(self, parts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Return the tokens of the joined documents, and where there are several, the document of each token."""
        text = SEPARATOR.join(parts)
        if len(parts) == 1 or not self.tokenizer.is_fast:
            return self._encode(text), []
        found = encoded(self.tokenizer, text, return_offsets_mapping=True)
        ends = list(accumulate(len(part) + len(SEPARATOR) for part in parts))
        owners = [bisect_right(ends, first) for first, _ in found["offset_mapping"]]
        return self._known(found["input_ids"]), owners

    def _begin(self, asked: bool | None) -> int | None:
        """Return the token that every window begins with, if any."""
        begin = beginning(self.tokenizer)
        if asked is None:
            return begin if family_of(self._facts.model_type).begins_windows else None
        if asked and begin is None:
            raise ModelInvalid(
                "the tokenizer begins no text with a token of its own",
                suggestions=("leave `bos` out",),
            )
        return begin if asked else None

    def _encode(self, text: str) -> list[int]:
        return self._known(encoded(self.tokenizer, text)["input_ids"])

    def _known(self, ids: list[int]) -> list[int]:
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


def _parts(ids: list[int], begin: int | None, limit: int) -> list[list[int]]:
    """Return rows of at most `limit` tokens that together predict what one row would: see `Texts.again`."""
    whole = ids if begin is None else [begin, *ids]
    starts = range(0, max(1, len(whole) - 1), limit - 1)
    firsts = [whole[start] if begin is None else begin for start in starts]
    return [
        [first, *whole[start + 1 : start + limit]]
        for first, start in zip(firsts, starts, strict=True)
    ]


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """Return `count` items at equal distances, in their order: files are often sorted by subject."""
    wanted = len(items) if count is None else min(count, len(items))
    return [items[index * len(items) // wanted] for index in range(wanted)]


@dataclass(frozen=True)
class _Cut:
    """Windows of one text, int64 [windows, seq], and alike the document of each token where it is known."""

    tokens: torch.Tensor
    units: torch.Tensor | None


def _joined(drawn: dict[str, tuple[list[torch.Tensor], list[torch.Tensor]]], part: int) -> Windows:
    """Return samples stacked by length; those of one length stay in their order."""
    counts = {name: len(both[part]) for name, both in drawn.items()}
    together = _stacked([sample for both in drawn.values() for sample in both[part]])
    by_task = {name: _stacked(both[part]) for name, both in drawn.items()}
    return Windows(together, counts, by_task=by_task)


def _stacked(samples: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return samples of one length in one tensor each, the shortest first."""
    by_length: dict[int, list[torch.Tensor]] = {}
    for sample in samples:
        by_length.setdefault(len(sample), []).append(sample)
    return tuple(torch.stack(by_length[length]) for length in sorted(by_length))


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
