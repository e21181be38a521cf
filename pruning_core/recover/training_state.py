"""Where a training stands, on disk: a process that is killed goes on from here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pruning_core.errors import ResumeMismatch
from pruning_core.recover.trainable_model import TrainableModel
from pruning_core.system.files import replacing

Weights = dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """Where a training stands.

    Attributes:
        fingerprint: Of all that decides the training.
        before: Validation loss of the start.
        lowest: The lowest yet.
        step: Steps done.
        seconds: Spent.
        ready: Seconds until the first step.
        validations: Done, the first included.
        validating: How many windows validate.
        best_step: Where the loss was lowest; 0 is the start.
        idle: Validations since then.
        losses: Of the steps since the last validation.
        history: Step, mean training loss and validation loss of every validation.
    """

    fingerprint: str
    before: float
    lowest: float
    step: int = 0
    seconds: float = 0.0
    ready: float = 0.0
    validations: int = 1
    validating: int = 0
    best_step: int = 0
    idle: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[tuple[int, float, float]] = field(default_factory=list)


def save_state(
    path: Path,
    state: TrainingState,
    model: TrainableModel,
    optimiser: torch.optim.Optimizer,
    best: Weights | None,
) -> None:
    """Write weights, moments and the best state: about 14 bytes per parameter."""
    weights = {f"weight.{name}": value.data for name, value in model.trained.items()}
    moments = {
        f"moment.{index}.{key}": value
        for index, values in optimiser.state_dict()["state"].items()
        for key, value in values.items()
    }
    bests = {f"best.{name}": value for name, value in (best or {}).items()}
    metadata = {"state": json.dumps(asdict(state))}
    with replacing(path) as temporary:
        save_file(weights | moments | bests, temporary, metadata=metadata)


def restore_state(
    path: Path, fingerprint: str, model: TrainableModel, optimiser: torch.optim.Optimizer
) -> tuple[TrainingState, Weights | None]:
    """Put back what an earlier attempt left, and return where it stood and its best weights.

    Raises:
        ResumeMismatch: the file is another training's.
    """
    with safe_open(path, framework="pt") as file:
        state = TrainingState(**json.loads(file.metadata()["state"]))
    if state.fingerprint != fingerprint:
        raise ResumeMismatch(f"{path} belongs to another run: remove it to start again")
    moments: dict[int, dict[str, torch.Tensor]] = {}
    best: Weights = {}
    for key, value in load_file(path).items():
        kind, _, name = key.partition(".")
        if kind == "weight":
            model.trained[name].data.copy_(value)
        elif kind == "best":
            best[name] = value
        else:
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})
    return state, best or None
