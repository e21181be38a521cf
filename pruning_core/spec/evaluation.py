"""What the report measures before and after pruning, and what must hold of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from pruning_core.spec.base import Frozen
from pruning_core.spec.calibration import DATA_NAME, FILE_PREFIX

MEASURES = ("ppl", "ppl_ratio", "acc", "acc_norm", "acc_drop", "acc_norm_drop")
EvaluationName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.:\-]{0,127}$")]


class Gate(Frozen):
    """A bound on one measured figure; where it does not hold, the job fails with its results kept."""

    metric: str = Field(min_length=3, max_length=160)
    """`<task>.<measure>`: `ppl`, `acc` and `acc_norm` of the pruned model; `ppl_ratio`, pruned over dense; `acc_drop` and `acc_norm_drop`, dense minus pruned."""
    min: float | None = None
    max: float | None = None

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        task, _, measure = value.rpartition(".")
        if not task or measure not in MEASURES:
            raise ValueError(
                f"{value!r} is not `<task>.<measure>`; measures: {', '.join(MEASURES)}"
            )
        return value

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs `min`, `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("the gate's `min` is above its `max`")
        return self

    @property
    def task(self) -> str:
        """The task that is measured."""
        return self.metric.rpartition(".")[0]

    @property
    def measure(self) -> str:
        """What is measured of it."""
        return self.metric.rpartition(".")[2]

    @property
    def needs_baseline(self) -> bool:
        """Whether the dense model is measured too."""
        return self.measure.endswith(("_ratio", "_drop"))


class Evaluation(Frozen):
    """Perplexity of text tasks (joined text, non-overlapping windows, the tail dropped), accuracy of multiple-choice tasks (the likelier continuation), on their evaluation splits."""

    harness: Literal["secateur", "lm_eval"] = "secateur"
    """Who measures. `lm_eval`: `tasks` are names of lm-evaluation-harness, which must be installed beside the worker."""
    tasks: tuple[EvaluationName, ...] | None = Field(default=None, max_length=64)
    """Task names. Unset: the calibration tasks (their evaluation split is disjoint from the one that calibrates). Empty: none."""
    windows: int | None = Field(default=16, ge=1, le=65536)
    """Windows per text task, from the start of its text. `null`: all of them."""
    items: int | None = Field(default=400, ge=1, le=1_000_000)
    """Items per multiple-choice task, spread evenly over its file (of lm_eval: the first). `null`: all of them."""
    seq_len: int | None = Field(default=None, ge=8, le=131072)
    """Tokens per window. Unset: 2048, or the model's own limit where that is smaller."""
    bos: bool | None = None
    """Begin every window with the tokenizer's first token. Unset: where the architecture needs it (Gemma), else the text alone does. Questions begin as the tokenizer begins any text."""
    baseline: bool = True
    """Measure the dense model too."""
    speed: bool | None = None
    """Measure prefill and decode tokens per second, of both models in one process. Unset: unless `tasks` is empty."""

    @model_validator(mode="after")
    def _names_of_its_harness(self) -> Self:
        if self.harness == "lm_eval":
            if not self.tasks:
                raise ValueError("harness lm_eval needs the names of its tasks")
            if any(name.startswith(FILE_PREFIX) for name in self.tasks):
                raise ValueError("harness lm_eval reads no uploaded files")
            return self
        for name in self.tasks or ():
            if not re.fullmatch(DATA_NAME, name):
                raise ValueError(f"{name!r} is no task name (lower case) and no `file:<id>`")
        if self.tasks and len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a task is named twice")
        return self
