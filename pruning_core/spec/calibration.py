"""Which text drives the statistics, how much of it, and with which seed."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from pruning_core.spec.base import Frozen

TASK_NAME = r"^[a-z0-9][a-z0-9_.\-]{0,63}$"
FILE_PREFIX = "file:"
DATA_NAME = r"^([a-z0-9][a-z0-9_.\-]{0,63}|file:file_[0-9A-HJKMNP-TV-Z]{26})$"
DEFAULT_SAMPLES = 128
DEFAULT_SEQ_LEN = 2048
BUILT_IN_TASK = "python_docs"
SELF_TASK = "self"

TaskName = Annotated[str, StringConstraints(pattern=DATA_NAME)]
"""A name listed by `GET /v1/tasks`, or `file:<id>` of an uploaded file."""


class CalibrationTask(Frozen):
    """One task's share of the calibration samples."""

    name: TaskName
    """A name listed by `GET /v1/tasks`, or `file:<id>` of an uploaded file."""
    samples: int | None = Field(default=None, ge=1, le=65536)
    """Samples to draw. Unset: `default_samples`, or all that there are where that is fewer (the report says how many)."""
    weight: float | None = Field(default=None, gt=0, le=1e6)
    """Share of `calibration.samples`, relative to the other tasks' weights. Unset: 1."""


class Calibration(Frozen):
    """Samples are drawn with the seed: windows of joined text, or one document or question each."""

    tasks: tuple[CalibrationTask, ...] = Field(
        default=(CalibrationTask(name=BUILT_IN_TASK),), min_length=1, max_length=64
    )
    """Names, or objects with `name` and `samples` or `weight`."""
    default_samples: int | None = Field(default=None, ge=1, le=65536)
    """Samples at most of a task that names no number. Unset: 128 (`diet`: 100), on a CPU 8."""
    samples: int | None = Field(default=None, ge=1, le=65536)
    """Samples of all tasks together, spread by weight, in place of each task's own number."""
    seq_len: int | None = Field(default=None, ge=8, le=131072)
    """Tokens per sample at most. Unset: 2048, or the model's own limit where that is smaller."""
    layout: Literal["packed", "rows"] = "packed"
    """`packed`: text joined and cut into full windows. `rows`: every document or question by itself, cut at `seq_len`."""
    answers: bool = True
    """Multiple-choice items calibrate with their right answer; false: with the prompt alone."""
    chat_template: bool = False
    """Wrap every document or question in the tokenizer's chat template; needs the layout `rows`. Conversations are always in it."""
    bos: bool | None = None
    """Begin every window with the tokenizer's first token. Unset: where the architecture needs it (Gemma), else the text alone does."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Decides which samples are drawn."""

    @field_validator(
        "tasks", mode="before", json_schema_input_type=list[CalibrationTask | TaskName]
    )
    @classmethod
    def _expand_names(cls, tasks: Any) -> Any:
        if not isinstance(tasks, list | tuple):
            return tasks
        return tuple({"name": task} if isinstance(task, str) else task for task in tasks)

    @field_validator("tasks")
    @classmethod
    def _unique(cls, tasks: tuple[CalibrationTask, ...]) -> tuple[CalibrationTask, ...]:
        if len({task.name for task in tasks}) < len(tasks):
            raise ValueError("a task is named twice: give its samples once")
        return tasks

    @model_validator(mode="after")
    def _one_way_to_share(self) -> Self:
        if self.samples is None and any(task.weight is not None for task in self.tasks):
            raise ValueError("weights share out `calibration.samples`: give it too")
        if self.samples is not None:
            if any(task.samples is not None for task in self.tasks):
                raise ValueError("give `calibration.samples` or each task's own, not both")
            if self.samples < len(self.tasks):
                raise ValueError("fewer `calibration.samples` than tasks")
        if self.chat_template and self.layout != "rows":
            raise ValueError(
                "chat_template needs the layout `rows`: a conversation is not joined text"
            )
        return self

    def samples_of(self, task: CalibrationTask) -> int | None:
        """Return how many samples a task gives; None for the default. Rounded so that the total is exact."""
        if self.samples is None:
            return task.samples
        return _shares([entry.weight or 1.0 for entry in self.tasks], self.samples)[
            self.tasks.index(task)
        ]


def _shares(weights: list[float], total: int) -> list[int]:
    """Return whole numbers near the weights' shares that sum to `total`, each at least 1: largest remainders first."""
    spare = total - len(weights)
    exact = [spare * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: shares[index] - exact[index])
    for index in by_remainder[: spare - sum(shares)]:
        shares[index] += 1
    return [1 + share for share in shares]
