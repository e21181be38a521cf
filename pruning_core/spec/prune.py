"""`PruneSpec`: everything that decides the bytes of a pruned checkpoint."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pruning_core.spec.base import Frozen
from pruning_core.spec.calibration import Calibration, CalibrationTask, TaskName
from pruning_core.spec.evaluation import Evaluation
from pruning_core.spec.methods import Method
from pruning_core.spec.output import Output
from pruning_core.spec.patterns import NofM, Pattern, PatternName


class PruneSpec(Frozen):
    """A method, how much it removes, and on which text; shorthands are expanded, defaults filled in."""

    method: Method
    """A method's name, or an object with `name` and that method's own parameters."""
    sparsity: float | None = Field(default=None, gt=0, lt=1)
    """Share of the weights of every pruned matrix that become zero. Exactly one of this and an `n:m` pattern."""
    pattern: Pattern = Field(default=None, validate_default=True)
    """Unset: the method's own (`GET /v1/methods`). A name, or `{"name": "n:m", "n": 2, "m": 4}`."""
    calibration: Calibration = Calibration()
    """An object, or a plain list of tasks."""
    evaluation: Evaluation = Evaluation()
    output: Output = Output()

    @field_validator("method", mode="before", json_schema_input_type=Method | str)
    @classmethod
    def _named_method(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("pattern", mode="before", json_schema_input_type=Pattern | PatternName | None)
    @classmethod
    def _named_pattern(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and "method" in info.data:
            value = info.data["method"].default_pattern
        return {"name": value or "row"} if value is None or isinstance(value, str) else value

    @field_validator(
        "calibration",
        mode="before",
        json_schema_input_type=Calibration | list[CalibrationTask | TaskName],
    )
    @classmethod
    def _listed_tasks(cls, value: Any) -> Any:
        return {"tasks": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _one_ratio(self) -> Self:
        if isinstance(self.pattern, NofM) == (self.sparsity is not None):
            raise ValueError(
                "give exactly one of `sparsity` and a pattern `n:m` (which implies it)"
            )
        if self.pattern.name not in self.method.patterns:
            allowed = ", ".join(self.method.patterns)
            raise ValueError(
                f"{self.method.name} cannot produce the pattern {self.pattern.name}; it can: {allowed}"
            )
        return self

    @property
    def ratio(self) -> float:
        """Share of weights removed from every pruned matrix, in (0, 1)."""
        if isinstance(self.pattern, NofM):
            return 1 - self.pattern.n / self.pattern.m
        assert self.sparsity is not None
        return self.sparsity

    @property
    def evaluation_tasks(self) -> tuple[str, ...]:
        """Names of the tasks whose evaluation split is measured."""
        if self.evaluation.tasks is not None:
            return self.evaluation.tasks
        return tuple(task.name for task in self.calibration.tasks)
