"""`PruneSpec`: everything that decides the bytes of a pruned checkpoint."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pruning_core.spec.base import Frozen
from pruning_core.spec.calibration import SELF_TASK, Calibration, CalibrationTask, TaskName
from pruning_core.spec.composition import (
    UNIFORM,
    Allocation,
    Reconstruction,
    Refinement,
    Refit,
)
from pruning_core.spec.element_methods import ElementMethod
from pruning_core.spec.evaluation import Evaluation, Gate
from pruning_core.spec.methods import Method
from pruning_core.spec.output import Output
from pruning_core.spec.patterns import NofM, Pattern, PatternName, Units
from pruning_core.spec.recovery import Recovery
from pruning_core.spec.search import Search
from pruning_core.spec.unit_method import UnitMethod


class Budget(Frozen):
    """How large the result may be: for methods that remove units."""

    parameters: int | None = Field(default=None, ge=1, le=10**15)
    """Parameters of the whole model."""
    bytes: int | None = Field(default=None, ge=1, le=10**16)
    """Bytes of its tensors, in the type that `output.dtype` gives them."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.parameters is None) == (self.bytes is None):
            raise ValueError("a budget names `parameters` or `bytes`")
        return self


class PruneSpec(Frozen):
    """A method, how much it removes, and on which text; shorthands are expanded, defaults filled in."""

    method: Method
    """A method's name, or an object with `name` and that method's own parameters."""
    sparsity: float | None = Field(default=None, gt=0, lt=1)
    """Share of the weights of every pruned matrix that become zero; of methods that remove units, share of the whole
    model's parameters that go. Exactly one of this, an `n:m` pattern and a budget."""
    budget: Budget | None = None
    """Size of the result, in place of `sparsity`: for methods that remove units."""
    pattern: Pattern = Field(default=None, validate_default=True)
    """Unset: the method's own (`GET /v1/methods`). A name, or `{"name": "n:m", "n": 2, "m": 4}`."""
    allocation: Allocation = UNIFORM
    """How the share is spread over the blocks; the model as a whole loses exactly `sparsity`."""
    refinement: tuple[Refinement, ...] = Field(default=(), max_length=8)
    """Applied to every matrix after the method, in order."""
    true_sequential: bool = False
    """Within a block, take the inputs of later matrices from the pruned earlier ones; one forward pass per input."""
    reconstruction: Reconstruction | None = None
    """Train each pruned block on the dense block's output; `{}` for the defaults."""
    recovery: Recovery | None = None
    """Fine-tune the pruned model; `{}` for the defaults. Zeros of a mask stay zero."""
    calibration: Calibration = Calibration()
    """An object, or a plain list of tasks."""
    evaluation: Evaluation = Evaluation()
    gates: tuple[Gate, ...] = Field(default=(), max_length=64)
    """Bounds on what is measured; a job that misses one fails with `QUALITY_GATE_FAILED` and keeps its results."""
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

    @field_validator("allocation", mode="before", json_schema_input_type=Allocation | str)
    @classmethod
    def _named_allocation(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("refinement", mode="before", json_schema_input_type=list[Refinement | str])
    @classmethod
    def _named_refinements(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple({"name": step} if isinstance(step, str) else step for step in value)

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
        if self.pattern.name not in self.method.patterns:
            allowed = ", ".join(self.method.patterns)
            raise ValueError(
                f"{self.method.name} cannot produce the pattern {self.pattern.name}; it can: {allowed}"
            )
        if isinstance(self.method, UnitMethod):
            self._check_amount_of_units(self.method)
        elif self.budget is not None:
            raise ValueError(
                f"a budget needs a method that removes units: {self.method.name} makes nothing smaller"
            )
        elif isinstance(self.pattern, NofM) == (self.sparsity is not None):
            raise ValueError(
                "give exactly one of `sparsity` and a pattern `n:m` (which implies it)"
            )
        return self

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if isinstance(self.method, UnitMethod):
            self._check_units(self.method)
        elif any(step.fits_read_outs for step in self.refinement):
            raise ValueError(
                "refit needs a method that removes units; `polish` fits masked weights"
            )
        self._check_budget()
        if self.allocation.varies:
            self._check_allocation()
        if self.true_sequential and not self.needs_calibration:
            raise ValueError(f"true_sequential does nothing: {self.method.name} reads no inputs")
        if isinstance(self.method, ElementMethod):
            self.method.check_pattern(self.pattern)
        return self

    @model_validator(mode="after")
    def _gates_are_measured(self) -> Self:
        for gate in self.gates:
            if self.evaluation.harness != "secateur":
                raise ValueError("gates need the harness `secateur`")
            if gate.task not in self.evaluation_tasks:
                raise ValueError(f"the gate {gate.metric} bounds a task that is not evaluated")
            if gate.needs_baseline and not self.evaluation.baseline:
                raise ValueError(f"the gate {gate.metric} needs `evaluation.baseline`")
        return self

    @model_validator(mode="after")
    def _check_recovery(self) -> Self:
        recovery = self.recovery
        if recovery is None or not self.renumbers_tokens:
            return self
        if recovery.distillation:
            raise ValueError(
                "recovery.distillation compares predictions token by token, but the part `embedding` removes tokens: "
                "leave it off"
            )
        if SELF_TASK in (recovery.tasks or tuple(task.name for task in self.calibration.tasks)):
            raise ValueError(
                "the dense model's own text (`self`) does not train a model with fewer tokens: "
                "name other tasks in recovery.tasks"
            )
        return self

    def _check_amount_of_units(self, method: UnitMethod) -> None:
        given = [self.sparsity is not None, self.budget is not None, method.decides_amount]
        if sum(given) > 1 or (method.needs_amount and not any(given)):
            raise ValueError(
                "give exactly one of `sparsity`, `budget` and the method's own threshold"
            )

    def _check_units(self, method: UnitMethod) -> None:
        for given, name in (
            (self.true_sequential, "true_sequential"),
            (self.reconstruction, "reconstruction"),
            (self.allocation.varies, "an allocation"),
        ):
            if given:
                raise ValueError(
                    f"{name} is for methods that zero single weights; {method.name} removes the same number "
                    "of units from every block, because stock transformers loads nothing else"
                )
        if any(not step.fits_read_outs for step in self.refinement) or len(self.refinement) > 1:
            raise ValueError(f"{method.name} removes units: its one refinement is `refit`")
        self._check_refit(method)
        assert self.units is not None
        method.check(self.units, self.refit)

    def _check_refit(self, method: UnitMethod) -> None:
        refit = self.refit
        if refit is None:
            return
        if set(method.unit_kinds) <= {"layers", "vocabulary"}:
            raise ValueError("refit has nothing to fit: no read-out loses any of its inputs")
        if refit.target == "same" and "hidden" in method.unit_kinds:
            raise ValueError("refit of residual dimensions needs the target `dense`")

    def _check_budget(self) -> None:
        if self.budget is not None and self.units is not None and self.units.mode == "zero":
            raise ValueError(
                "a budget is the size of a smaller model; with `mode: zero` give `sparsity`, the share of zeros"
            )

    def _check_allocation(self) -> None:
        name = self.allocation.name
        if isinstance(self.pattern, NofM):
            raise ValueError(f"allocation {name} needs a ratio that may differ; n:m fixes it")
        self.allocation.check(self.ratio)

    @property
    def needs_calibration(self) -> bool:
        """Whether any part reads calibration text."""
        parts = (self.refinement, self.reconstruction, self.allocation.needs_calibration)
        return self.method.needs_calibration or any(parts)

    @property
    def held_out_windows(self) -> int:
        """Windows of calibration text on which a search judges its candidates."""
        return self.search.windows if self.search else 0

    @property
    def search(self) -> Search | None:
        """How parameters of the method are searched before pruning, if they are."""
        return self.method.searched_by if isinstance(self.method, ElementMethod) else None

    @property
    def preset(self) -> str | None:
        """Name of stored parameters of the method, where they take the place of its own."""
        return self.method.preset_name if isinstance(self.method, ElementMethod) else None

    @property
    def refit(self) -> Refit | None:
        """The refit of read-outs, if it was asked for."""
        return next((step for step in self.refinement if isinstance(step, Refit)), None)

    @property
    def units(self) -> Units | None:
        """How units are removed, if they are."""
        return self.pattern if isinstance(self.pattern, Units) else None

    @property
    def renumbers_tokens(self) -> bool:
        """Whether the result's tokens have other ids than the dense model's."""
        removes = self.units is not None and self.units.mode == "remove"
        return removes and self.counts_tokens

    @property
    def fits_modules(self) -> bool:
        """Whether the method itself fits every module to the dense model before it scores it."""
        return isinstance(self.method, UnitMethod) and self.method.fits_modules is not None

    @property
    def counts_tokens(self) -> bool:
        """Whether the calibration text decides which tokens go."""
        return isinstance(self.method, UnitMethod) and "vocabulary" in self.method.unit_kinds

    @property
    def ratio(self) -> float:
        """Share of weights removed from every pruned matrix, in (0, 1)."""
        if isinstance(self.pattern, NofM):
            return 1 - self.pattern.n / self.pattern.m
        assert self.sparsity is not None
        return self.sparsity

    @property
    def measures_speed(self) -> bool:
        """Whether tokens per second are measured."""
        asked = self.evaluation.speed
        return self.evaluation.tasks != () if asked is None else asked

    @property
    def evaluation_tasks(self) -> tuple[str, ...]:
        """Names of the tasks whose evaluation split is measured; text of the model's own is none."""
        if self.evaluation.tasks is not None:
            return self.evaluation.tasks
        return tuple(task.name for task in self.calibration.tasks if task.name != SELF_TASK)
