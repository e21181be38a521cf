"""Which text drives the statistics, how much of it, and with which seed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator

from pruning_core.spec.base import Frozen

TASK_NAME = r"^[a-z0-9][a-z0-9_.\-]{0,63}$"
DEFAULT_SAMPLES = 128
DEFAULT_SEQ_LEN = 2048
BUILT_IN_TASK = "python_docs"

TaskName = Annotated[str, StringConstraints(pattern=TASK_NAME)]


class CalibrationTask(Frozen):
    """One task's share of the calibration windows."""

    name: TaskName
    """A name listed by `GET /v1/tasks`."""
    samples: int | None = Field(default=None, ge=1, le=65536)
    """Windows to draw. Unset: 128, or all that the task's text fills where that is fewer (the report says how many)."""


class Calibration(Frozen):
    """Text is tokenised once, cut into non-overlapping windows and drawn with the seed."""

    tasks: tuple[CalibrationTask, ...] = Field(
        default=(CalibrationTask(name=BUILT_IN_TASK),), min_length=1, max_length=64
    )
    """Names, or objects with `name` and `samples`."""
    seq_len: int | None = Field(default=None, ge=8, le=131072)
    """Tokens per window. Unset: 2048, or the model's own limit where that is smaller."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Decides the order in which documents are drawn."""

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
