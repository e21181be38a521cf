"""Fine-tuning of the pruned checkpoint: what a job may ask for, and what came of it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pruning_core.spec.base import Frozen
from pruning_core.spec.calibration import TaskName

DEFAULT_SEQ_LEN = 512
DEFAULT_RANK = 16
DEFAULT_TEMPERATURE = 2.0
DEFAULT_RATES = {"full": 5e-5, "lora": 1e-4}


class Recovery(Frozen):
    """Train the surviving weights of the whole model on text; what a mask removed stays zero."""

    method: Literal["full", "lora"] = "full"
    """`full`: every parameter. `lora`: low-rank changes of the blocks' matrices (arXiv 2106.09685), under their masks, merged at the end."""
    rank: int | None = Field(default=None, ge=1, le=1024)
    """Of `lora`'s changes. Unset: 16."""
    alpha: float | None = Field(default=None, gt=0, le=65536)
    """`lora`'s changes are multiplied by alpha over rank. Unset: twice the rank."""
    tasks: tuple[TaskName, ...] | None = Field(default=None, min_length=1, max_length=64)
    """Whose calibration splits train. Unset: the calibration tasks."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """AdamW's largest. Unset: 5e-5, or 1e-4 with `lora`."""
    epochs: float | None = Field(default=None, gt=0, le=1000)
    """Most passes over the training windows. Unset: 1 where no other bound is given."""
    steps: int | None = Field(default=None, ge=1, le=10_000_000)
    """Most optimiser steps."""
    minutes: float | None = Field(default=None, gt=0, le=100_000)
    """Most minutes of training, its validations included; makes results depend on the machine's speed."""
    batch: int = Field(default=8, ge=1, le=1024)
    """Windows per forward pass."""
    accumulation: int = Field(default=1, ge=1, le=1024)
    """Forward passes per optimiser step."""
    seq_len: int | None = Field(default=None, ge=8, le=131072)
    """Tokens per window. Unset: 512, or the model's own limit where that is smaller."""
    validation: float = Field(default=0.1, gt=0, le=0.5)
    """Share of the windows that no step sees and that decides what is kept: no more than this share of the windows that the
    budget trains on, or of `minutes`, but for 4,096 tokens."""
    evaluate_every: float = Field(default=0.25, ge=0.01, le=1000)
    """Epochs between two validations."""
    patience: int | None = Field(default=3, ge=1, le=10_000)
    """Validations without a new best before training stops; null: never."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of products; weights are trained in float32 always. `auto`: bf16 on an accelerator, fp32 on a CPU."""
    distillation: float = Field(default=0.0, ge=0, le=1)
    """Weight of the divergence from the dense model's predictions in the loss; the text's own tokens have the rest."""
    temperature: float | None = Field(default=None, ge=0.1, le=100)
    """Softens both models' predictions for the distillation. Unset: 2."""
    warmup: float = Field(default=0.05, ge=0, le=0.9)
    """Share of the training in which the rate rises; it then falls to 0 along a cosine."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """AdamW's, of matrices."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Decides which windows validate, the order of the others, and dropout."""

    @model_validator(mode="after")
    def _no_idle_fields(self) -> Self:
        if self.method != "lora" and (self.rank is not None or self.alpha is not None):
            raise ValueError("rank and alpha belong to the method `lora`")
        if self.distillation == 0 and self.temperature is not None:
            raise ValueError("temperature belongs to distillation: give its weight too")
        if self.tasks is not None and len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a task is named twice")
        return self

    @property
    def rate(self) -> float:
        """The largest learning rate."""
        return self.learning_rate or DEFAULT_RATES[self.method]

    @property
    def lora_rank(self) -> int:
        """Rank of the changes."""
        return self.rank or DEFAULT_RANK

    @property
    def lora_scale(self) -> float:
        """What the changes are multiplied by."""
        return 2.0 if self.alpha is None else self.alpha / self.lora_rank

    @property
    def softness(self) -> float:
        """The temperature."""
        return self.temperature or DEFAULT_TEMPERATURE

    def most_steps(self, per_epoch: int) -> int | None:
        """Return how many optimiser steps the budget allows; None where only time bounds it."""
        epochs = self.epochs
        if epochs is None and self.steps is None and self.minutes is None:
            epochs = 1
        bounds = [] if epochs is None else [max(1, round(epochs * per_epoch))]
        if self.steps is not None:
            bounds.append(self.steps)
        return min(bounds, default=None)


class RecoveryPoint(Frozen):
    """One validation on the way."""

    step: int
    training_loss: float
    """Mean over the steps since the point before."""
    validation_loss: float
    """Of the weights as the checkpoint would store them."""


class RecoveryReport(Frozen):
    """What fine-tuning gained.

    Losses are those that were trained: mean negative log-likelihood per token, with `distillation` the weighted sum of it
    and the divergence from the dense model.
    """

    method: Literal["full", "lora"]
    steps: int
    epochs: float
    """Passes over the training windows."""
    seconds: float
    """Of training and its validations, over all attempts."""
    windows: int
    tokens: int
    """Of the training windows."""
    trained_tokens: int
    """Tokens that the steps saw, those of a further epoch again."""
    validation_windows: int
    validation_tokens: int
    """Of the validation windows: read in every validation."""
    validations: int
    """How often, the start included."""
    loss_before: float
    """On the validation windows, of the pruned model."""
    loss_after: float
    """On the validation windows, of what was kept."""
    best_step: int
    """What was kept; 0: nothing beat the pruned model, which is handed on as it was."""
    stopped: Literal["budget", "patience", "time"]
    history: tuple[RecoveryPoint, ...]
    distilled: bool
    precision: Literal["fp32", "bf16"]
    digest: str
    """sha256 of the training token ids."""
