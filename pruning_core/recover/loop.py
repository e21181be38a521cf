"""The loop of recovery: AdamW in float32 on packed windows, warm-up, then a cosine to 0; the best validation is kept.

Gradients are multiplied by the mask and the mask is applied again after every step. The load-balancing loss of mixtures of
experts is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pruning_core.errors import NumericalFailure
from pruning_core.recover import held_out
from pruning_core.recover.loss import mean_loss
from pruning_core.recover.schedule import Schedule, chosen, rate_share, step_seed
from pruning_core.recover.trainable_model import TrainableModel
from pruning_core.recover.training_state import TrainingState, restore_state, save_state
from pruning_core.spec.recovery import Recovery, RecoveryPoint, RecoveryReport
from pruning_core.system.subprocesses import ProgressCallback
from pruning_core.text.windows import Windows

CHECKPOINT_SECONDS = 300.0
SAVING_RATIO = 10.0
"""Training takes at least this many times as long as writing its last checkpoint took."""
MAX_NORM = 1.0
"""Longer gradients are shortened to it."""

Stopped = Literal["budget", "patience", "time"]


class Training:
    """Trains a model until its budget, its time or its patience ends.

    Args:
        model: What is trained.
        teacher: The dense model, where it is distilled.
        tokens: int64 [windows, seq].
        validation: int64 [windows, seq].
        params: How.
        device: Of both models.
        path: Where checkpoints are kept: weights, AdamW's moments and the best state, about 14 bytes per parameter.
        fingerprint: Of this training.
        on_progress: Called after every step, and after every batch that validates.
        pause: Least seconds between checkpoints.
        saving_ratio: The least, as a multiple of what the last checkpoint took.

    Attributes:
        best: The best weights, by name; None while nothing beats the start.
    """

    def __init__(
        self,
        model: TrainableModel,
        teacher: Any,
        tokens: torch.Tensor,
        validation: torch.Tensor,
        params: Recovery,
        *,
        device: torch.device,
        path: Path,
        fingerprint: str,
        on_progress: ProgressCallback = lambda _done, _total, _unit, _share: None,
        pause: float = CHECKPOINT_SECONDS,
        saving_ratio: float = SAVING_RATIO,
    ) -> None:
        self._model = model
        self._teacher = teacher
        self._tokens = tokens
        self._validation = validation
        self._params = params
        self._device = device
        self._path = path
        self._on_progress = on_progress
        self._pause = self._least_pause = pause
        self._saving_ratio = saving_ratio
        self._size = params.batch * params.accumulation
        self._schedule = Schedule.of(params, len(tokens))
        self._most = self._schedule.most
        self._limit = None if params.minutes is None else 60 * params.minutes
        wanted = {"auto": device.type != "cpu", "bf16": True, "fp32": False}
        self._coarse = wanted[params.precision]
        self._optimiser = torch.optim.AdamW(_groups(model.trained, params), lr=params.rate)
        self.best: dict[str, torch.Tensor] | None = None
        self._begun = self._saved = time.perf_counter()
        self._earlier = self._check_seconds = 0.0
        self._state = self._restore(fingerprint) or self._start(fingerprint)
        self._earlier = self._state.seconds
        self._begun = self._saved = time.perf_counter()

    def run(self) -> RecoveryReport:
        """Return what was gained; the best weights are in `best`.

        Raises:
            NumericalFailure: a loss became NaN or infinite.
        """
        state, params = self._state, self._params
        stopped: Stopped | None = None
        while stopped is None:
            state.losses.append(self._step())
            state.step += 1
            self._clock()
            stopped = self._spent()
            if stopped or state.step % self._schedule.every == 0:
                self._check()
            if not stopped and params.patience is not None and state.idle >= params.patience:
                stopped = "patience"
            self._tell_steps()
            if not stopped and time.perf_counter() - self._saved >= self._pause:
                self._save()
        return self._report(stopped)

    def _report(self, stopped: Stopped) -> RecoveryReport:
        state = self._state
        points = (
            RecoveryPoint(step=step, training_loss=training, validation_loss=validation)
            for step, training, validation in state.history
        )
        return RecoveryReport(
            method=self._params.method,
            steps=state.step,
            epochs=state.step / self._schedule.per_epoch,
            seconds=state.seconds,
            windows=len(self._tokens),
            tokens=self._tokens.numel(),
            trained_tokens=self._trained_tokens(),
            validation_windows=state.validating,
            validation_tokens=state.validating * self._validation.shape[1],
            validations=state.validations,
            loss_before=state.before,
            loss_after=state.lowest,
            best_step=state.best_step,
            stopped=stopped,
            history=tuple(points),
            distilled=self._teacher is not None,
            precision="bf16" if self._coarse else "fp32",
            digest=Windows((self._tokens,), {}).digest,
        )

    def _step(self) -> float:
        """Move the weights once and return the loss before."""
        step, seed = self._state.step, self._params.seed
        torch.manual_seed(step_seed(seed, step))
        windows = chosen(len(self._tokens), step, self._size, seed)
        total = 0.0
        for part in torch.split(windows, self._params.batch):
            loss = self._loss(self._tokens[part]) * (len(part) / len(windows))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        self._model.mask_gradients()
        norm = nn.utils.clip_grad_norm_(self._model.trained.values(), MAX_NORM)
        if not math.isfinite(total) or not math.isfinite(float(norm)):
            raise self._failure("training loss")
        rate = self._params.rate * rate_share(self._share(0.5), self._params.warmup)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._model.mask_weights()
        return total

    def _trained_tokens(self) -> int:
        """Return the tokens that all steps have seen; the last step of an epoch may see fewer windows."""
        epochs, rest = divmod(self._state.step, self._schedule.per_epoch)
        windows = epochs * len(self._tokens) + rest * self._size
        return windows * self._tokens.shape[1]

    def _check(self) -> None:
        """Validate, and keep what is better than all before."""
        state = self._state
        loss = self._validated()
        state.validations += 1
        state.history.append((state.step, sum(state.losses) / len(state.losses), loss))
        state.losses.clear()
        state.idle += 1
        if loss < state.lowest:
            state.lowest, state.best_step, state.idle = loss, state.step, 0
            self.best = self._model.weights()
        self._clock()

    def _validated(self) -> float:
        total, done, begun = 0.0, 0, time.perf_counter()
        windows = self._validation[: self._state.validating]
        with self._model.evaluating():
            for part in torch.split(windows, self._params.batch):
                total += float(self._loss(part)) * len(part)
                done += len(part)
                self._on_progress(done, len(windows), "validation window", self._share())
        if not math.isfinite(total):
            raise self._failure("validation loss")
        self._check_seconds = time.perf_counter() - begun
        return total / len(windows)

    def _affordable(self) -> int:
        """Return how many windows validate: where time is the budget, no more than fill their share of it at start and end."""
        most, least = len(self._validation), held_out.least(self._validation)
        if self._limit is None or most <= least:
            return most
        part, begun = self._validation[: self._params.batch], time.perf_counter()
        with self._model.evaluating():
            float(self._loss(part))
        each = (time.perf_counter() - begun) / len(part)
        return min(most, max(least, int(self._params.validation * self._limit / (2 * each))))

    def _loss(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the mean loss per predicted token, of int64 [batch, seq]."""
        return mean_loss(
            self._model.model,
            self._teacher,
            windows.to(self._device),
            self._params,
            coarse=self._coarse,
        )

    def _failure(self, what: str) -> NumericalFailure:
        return NumericalFailure(
            f"the {what} is NaN or infinite after {self._state.step} steps: use a lower "
            f"recovery.learning_rate than {self._params.rate:g}"
        )

    def _clock(self) -> None:
        self._state.seconds = self._earlier + time.perf_counter() - self._begun

    def _spent(self) -> Stopped | None:
        if self._state.step == self._most:
            return "budget"
        if self._limit is None or self._state.seconds + self._check_seconds < self._limit:
            return None
        return "time"

    def _share(self, ahead: float = 0.0) -> float:
        """Return the share of the budget that is used up `ahead` steps from here."""
        steps = 0.0 if self._most is None else (self._state.step + ahead) / self._most
        return min(1.0, max(steps, self._clock_share()))

    def _clock_share(self) -> float:
        """Return the share of the time after the first validation, which no step could use."""
        ready, now = self._state.ready, self._state.seconds
        if self._limit is None or now <= ready:
            return 0.0
        return (now - ready) / (self._limit - ready) if self._limit > ready else 1.0

    def _tell_steps(self) -> None:
        self._on_progress(self._state.step, self._most or 0, "step", self._share())

    def _start(self, fingerprint: str) -> TrainingState:
        state = self._state = TrainingState(fingerprint, before=math.nan, lowest=math.nan)
        state.validating = self._affordable()
        state.before = state.lowest = self._validated()
        self._clock()
        state.ready = state.seconds
        return state

    def _save(self) -> None:
        begun = time.perf_counter()
        save_state(self._path, self._state, self._model, self._optimiser, self.best)
        self._saved = time.perf_counter()
        self._pause = max(self._least_pause, self._saving_ratio * (self._saved - begun))

    def _restore(self, fingerprint: str) -> TrainingState | None:
        """Put back what an earlier attempt left, if any."""
        if not self._path.is_file():
            return None
        state, self.best = restore_state(self._path, fingerprint, self._model, self._optimiser)
        return state


def _groups(trained: Mapping[str, nn.Parameter], params: Recovery) -> list[dict[str, Any]]:
    """Return the optimiser's groups: matrices decay, vectors do not."""
    matrices = [parameter for parameter in trained.values() if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained.values() if parameter.ndim < 2]
    groups = [(matrices, params.weight_decay), (vectors, 0.0)]
    return [{"params": some, "weight_decay": decay} for some, decay in groups if some]
