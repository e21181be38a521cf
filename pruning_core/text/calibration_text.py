"""Samples that calibrate, drawn with the seed from the calibration splits of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pruning_core.errors import DatasetTooSmall
from pruning_core.spec.calibration import (
    DEFAULT_SAMPLES,
    SELF_TASK,
    Calibration,
    CalibrationTask,
)
from pruning_core.text.packing import packed
from pruning_core.text.task_reader import BYTES_PER_TOKEN, SEPARATOR, TaskReader
from pruning_core.text.windows import Windows, grouped_by_length

Samples = list[torch.Tensor]
"""int64 [seq] each."""


@dataclass(frozen=True)
class _Drawn:
    """Samples of one task; none is in both."""

    calibrating: Samples
    held_out: Samples


def calibration_windows(
    reader: TaskReader, spec: Calibration, *, held_out: int = 0, default: int = DEFAULT_SAMPLES
) -> tuple[Windows, Windows]:
    """Return the calibration samples of every task, task after task, and as many others as `held_out` asks for.

    The others come from the same split of the same tasks, in equal shares; no sample is in both.

    Args:
        reader: The model's.
        spec: What to draw.
        held_out: How many others.
        default: Samples per task where the specification does not say.

    Raises:
        DatasetTooSmall: a task has fewer samples than were asked for.
    """
    draw = _Draw(
        reader,
        spec,
        length=reader.window_length(spec.seq_len),
        held_out=-(-held_out // len(spec.tasks)),
        default=default,
    )
    drawn = {task.name: draw.of(task) for task in spec.tasks}
    return (
        _joined({name: samples.calibrating for name, samples in drawn.items()}),
        _joined({name: samples.held_out for name, samples in drawn.items()}),
    )


def every_item(reader: TaskReader, task: str, spec: Calibration) -> Iterator[list[int]]:
    """Yield the tokens of every item of a task's calibration split that was read, whatever samples were drawn of it."""
    data = reader.data_used.split(task, "calibration")
    if spec.layout == "rows":
        yield from reader.token_rows(data, spec)
    else:
        for text in reader.texts(data, answers=spec.answers):
            yield reader.encode(text + SEPARATOR)


@dataclass(frozen=True)
class _Draw:
    """How samples are drawn, of every task alike: so many tokens each, so many of them held out."""

    reader: TaskReader
    spec: Calibration
    length: int
    held_out: int
    default: int

    def of(self, task: CalibrationTask) -> _Drawn:
        """Return as many samples as are asked for, and others to hold out, in an order of the seed's."""
        asked = self.spec.samples_of(task)
        samples = self._all_samples(task.name, (asked or self.default) + self.held_out)
        room = len(samples) - self.held_out
        count = min(self.default, room) if asked is None else asked
        if count > room or count < 1:
            raise self._too_few(task, len(samples), count)
        generator = torch.Generator().manual_seed(self.spec.seed)
        order = torch.randperm(len(samples), generator=generator)
        mixed = [samples[index] for index in order.tolist()]
        return _Drawn(mixed[:count], mixed[count : count + self.held_out])

    def _all_samples(self, task: str, wanted: int) -> Samples:
        """Return all that a task's calibration split gives; of what has no end, about as many as are wanted."""
        reader, spec = self.reader, self.spec
        if task == SELF_TASK:
            return list(reader.self_generated(wanted, self.length, spec.seed))
        limit = wanted * self.length * BYTES_PER_TOKEN
        data = reader.data_used.split(task, "calibration", limit_bytes=limit)
        if spec.layout == "packed":
            parts = reader.texts(data, answers=spec.answers)
            return list(packed(reader, parts, self.length, spec.bos, f"Task {task!r}").tokens)
        rows = reader.token_rows(data, spec)
        return [torch.tensor(row[: self.length]) for row in rows if len(row) > 1]

    def _too_few(self, task: CalibrationTask, samples: int, count: int) -> DatasetTooSmall:
        rows = self.spec.layout == "rows"
        beside = f" beside {self.held_out} held out for the search" if self.held_out else ""
        each = "one for each item" if rows else f"of {self.length} tokens"
        shorter = "the layout `packed`" if rows else "a shorter seq_len"
        room = samples - self.held_out
        return DatasetTooSmall(
            f"Task {task.name!r} gives {samples} samples, {each}; {count} were asked for{beside}.",
            suggestions=(f"ask for at most {room} samples", f"use {shorter}"),
        )


def _joined(by_task: dict[str, Samples]) -> Windows:
    """Return samples stacked by length; those of one length stay in their order."""
    counts = {name: len(samples) for name, samples in by_task.items()}
    together = grouped_by_length(sample for samples in by_task.values() for sample in samples)
    return Windows(
        together,
        counts,
        by_task={name: grouped_by_length(samples) for name, samples in by_task.items()},
    )
