"""`PruneSpec`: everything that decides the bytes of a pruned checkpoint."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pruning_core.spec.base import Frozen
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.evaluation import Evaluation
from pruning_core.spec.methods import METHODS, Method, method_name
from pruning_core.spec.output import Output
from pruning_core.spec.patterns import NofM, Pattern


class PruneSpec(Frozen):
    """A method, how much it removes, and on which text; shorthands are expanded, defaults filled in."""

    method: Method
    """A method's name, or an object with `name` and that method's own parameters."""
    sparsity: float | None = Field(default=None, gt=0, lt=1)
    """Share of the weights of every pruned matrix that become zero. Exactly one of this and an `n:m` pattern."""
    pattern: Pattern = Field(default=None, validate_default=False)  # type: ignore[assignment]
    """Unset: the method's own (`GET /v1/methods`). A name, or `{"name": "n:m", "n": 2, "m": 4}`."""
    calibration: Calibration = Calibration()
    """An object, or a plain list of tasks."""
    evaluation: Evaluation = Evaluation()
    output: Output = Output()

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthands(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for field in ("method", "pattern"):
            if isinstance(data.get(field), str):
                data[field] = {"name": data[field]}
        if data.get("pattern") is None:
            data["pattern"] = {"name": _default_pattern(data.get("method"))}
        return data

    @field_validator("calibration", mode="before")
    @classmethod
    def _expand_tasks(cls, value: Any) -> Any:
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


def _default_pattern(method: Any) -> str:
    name = method.get("name") if isinstance(method, dict) else getattr(method, "name", None)
    return next((cls.default_pattern for cls in METHODS if method_name(cls) == name), "row")
