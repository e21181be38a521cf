"""What is expected of a job before it runs: how much text a machine takes by default, and how long it will need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pruning_core.datasets.tasks import Files, Split, evaluated, find
from pruning_core.spec.calibration import DEFAULT_SAMPLES, DEFAULT_SEQ_LEN, SELF_TASK
from pruning_core.spec.evaluation import Evaluation
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import DEFAULT_SEQ_LEN as RECOVERY_SEQ_LEN
from pruning_core.spec.recovery import Recovery

Device = Literal["cpu", "gpu"]
CPU_SAMPLES = 8
CPU_WINDOWS = 10
"""As few as an interval can be given for."""
CPU_ITEMS = 100
CPU_STEPS = 25
GPU_FLOPS = 5e13
"""Assumed where nobody has said better: what common accelerators reach on models of some billion parameters."""
PRUNING_PASSES = 1.9
TRAINING_PASSES = 3
"""Forward and backward."""
SPEED_TOKENS = 3500
"""What timing a model costs, in tokens of a plain forward pass: those that are written one by one count for more."""
ITEM_TOKENS = 400
"""Of a question with its choices."""
BYTES_PER_TOKEN = 4
START_SECONDS = 45.0
"""To start processes, tokenise, and open the result twice."""
DISK_BYTES = 4e8
"""A second's worth of reading, hashing, converting and writing."""
COPIES = 10
"""How often the model's weights are read or written, in bytes per parameter x 4."""
USED = {"cpu": 0.5, "gpu": 0.4}
"""Share of the products' speed that a whole model reaches."""
SPREAD = {"cpu": 2.0, "gpu": 4.0}
"""The estimate is wrong by less than this factor, most of the time."""
_SIZE_IN_NAME = re.compile(
    r"(?<![A-Za-z0-9.])(?P<number>\d{1,4}(?:\.\d{1,3})?)(?P<unit>[mb])(?![A-Za-z0-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Machine:
    """What prunes.

    Attributes:
        device: What the workers compute on.
        flops: Products and sums of float32 per second, in matrices; None where nobody has measured.
    """

    device: Device
    flops: float | None = None


def sized(
    given: PruneSpec, machine: Machine | None, *, tasks_dir: Path | None, files: Files
) -> tuple[PruneSpec, tuple[str, ...]]:
    """Return the specification with every number of windows that nobody named, and what was decided so.

    Args:
        given: As it came, with the fields that were set marked as such.
        machine: Unknown: the numbers are those of a GPU.
        tasks_dir: The operator's tasks.
        files: The uploaded files that `given` names.
    """
    samples = _default_samples(given)
    if machine is None or machine.device == "gpu":
        return _with(given, samples, given.evaluation, given.recovery), ()
    notes: list[str] = []
    if _reads_default(given):
        samples = min(samples, CPU_SAMPLES)
        notes.append(f"calibration takes {samples} windows of each task (`calibration.samples`)")
    kinds = _kinds(given, tasks_dir, files)
    evaluation, more = _evaluation(given.evaluation, kinds)
    recovery = given.recovery
    if recovery is not None and not {"epochs", "steps", "minutes"} & recovery.model_fields_set:
        recovery = recovery.model_copy(update={"steps": CPU_STEPS})
        more = (*more, f"recovery takes {CPU_STEPS} steps (`prune.recovery.steps`)")
    reasons = "; ".join((*notes, *more))
    why = f"This service prunes on a CPU and no other number was asked for: {reasons}."
    return _with(given, samples, evaluation, recovery), (why,) if reasons else ()


def _with(
    given: PruneSpec, samples: int, evaluation: Evaluation, recovery: Recovery | None
) -> PruneSpec:
    calibration = given.calibration.model_copy(update={"default_samples": samples})
    update = {"calibration": calibration, "evaluation": evaluation, "recovery": recovery}
    return given.model_copy(update=update)


def _default_samples(spec: PruneSpec) -> int:
    """Return how many samples of a task that names none calibrate at most."""
    own = spec.calibration.default_samples or spec.method.default_samples
    return own or DEFAULT_SAMPLES


def _reads_default(spec: PruneSpec) -> bool:
    """Return whether some task calibrates with a number of samples that nobody named."""
    calibration = spec.calibration
    if not spec.needs_calibration or calibration.default_samples is not None:
        return False
    return any(calibration.samples_of(task) is None for task in calibration.tasks)


def _kinds(spec: PruneSpec, tasks_dir: Path | None, files: Files) -> set[str]:
    """Return what kinds of tasks are evaluated."""
    if spec.evaluation.harness == "lm_eval":
        return {"multiple_choice"}
    return {find(name, tasks_dir, files).kind for name in evaluated(spec, files)}


def _evaluation(asked: Evaluation, kinds: set[str]) -> tuple[Evaluation, tuple[str, ...]]:
    default = (
        ("text", "windows", CPU_WINDOWS, "perplexity {} windows (`evaluation.windows`)"),
        ("multiple_choice", "items", CPU_ITEMS, "accuracy {} items (`prune.evaluation.items`)"),
    )
    unset = [row for row in default if row[0] in kinds and row[1] not in asked.model_fields_set]
    update = {name: count for _, name, count, _ in unset}
    return asked.model_copy(update=update), tuple(
        words.format(count) for _, _, count, words in unset
    )


def expected(
    model: ModelRef,
    spec: PruneSpec,
    machine: Machine | None,
    *,
    parameters: int | None,
    max_positions: int | None,
    tasks_dir: Path | None,
    files: Files,
) -> dict[str, Any] | None:
    """Return how long a job will take: `minutes` (null where it cannot be known) and their `basis` in words.

    Args:
        model: What is pruned.
        spec: How, with every number filled in.
        machine: What prunes; None where nothing is known of it, and nothing is said.
        parameters: Of the model; None where only its name may tell.
        max_positions: Of the model, where it is known.
        tasks_dir: The operator's tasks.
        files: The uploaded files that `spec` names.
    """
    if machine is None:
        return None
    size, by_name = (parameters, "") if parameters else (size_in(model.ref), " (by its name)")
    if size is None:
        basis = (
            "the model's size is known only when it has been fetched; `secateur inspect` shows it"
        )
        return {"minutes": None, "basis": basis}
    passes = sum(_token_passes(spec, max_positions or DEFAULT_SEQ_LEN, tasks_dir, files))
    flops = machine.flops or GPU_FLOPS
    spread = SPREAD[machine.device]
    seconds = 2 * size * passes / (flops * USED[machine.device])
    fixed = START_SECONDS + COPIES * 4 * size / DISK_BYTES
    minutes = {"low": (seconds + fixed) / spread / 60, "high": (seconds + fixed) * spread / 60}
    return {
        "minutes": {end: round(value, 1) for end, value in minutes.items()},
        "basis": _basis(model, spec, size, by_name, passes, machine),
    }


def _basis(
    model: ModelRef, spec: PruneSpec, size: int, by_name: str, passes: float, machine: Machine
) -> str:
    speed = f"{(machine.flops or GPU_FLOPS) / 1e9:,.0f} GFLOP/s"
    how = "measured when the service started" if machine.flops else "assumed"
    left_out = ["waiting", *(["the download"] if model.repo else [])]
    recovery = spec.recovery
    if recovery is not None and recovery.steps is None:
        left_out.append("recovery")
    left_out += ["lm_eval"] if spec.evaluation.harness == "lm_eval" else []
    left_out += ["reconstruction"] if spec.reconstruction else []
    work = f"x {passes:,.0f} tokens through the whole model" if passes else "read and written"
    return (
        f"{size / 1e6:,.0f} million parameters{by_name} {work} "
        f"on a {machine.device.upper()} of {speed} ({how}); not counted: {', '.join(left_out)}"
    )


def size_in(name: str) -> int | None:
    """Return the parameters that a model's name tells of: 135M, 0.6B; the last of several."""
    sizes = list(_SIZE_IN_NAME.finditer(name))
    if not sizes:
        return None
    factor = 1e9 if sizes[-1]["unit"].lower() == "b" else 1e6
    return int(float(sizes[-1]["number"]) * factor) or None


def _token_passes(
    spec: PruneSpec, longest: int, tasks_dir: Path | None, files: Files
) -> Iterator[float]:
    """Yield, for each part of a job, the tokens that go through the whole model."""
    if spec.needs_calibration:
        length = min(spec.calibration.seq_len or DEFAULT_SEQ_LEN, longest)
        tokens = 0.0
        for task in spec.calibration.tasks:
            samples = spec.calibration.samples_of(task) or _default_samples(spec)
            tokens += _bounded(samples * length, task.name, "calibration", tasks_dir, files)
        observing = spec.units is not None or spec.allocation.varies
        yield tokens * (PRUNING_PASSES + observing + PRUNING_PASSES * bool(spec.held_out_windows))
    models = 1 + spec.evaluation.baseline
    if spec.evaluation.harness == "secateur":
        length = min(spec.evaluation.seq_len or DEFAULT_SEQ_LEN, longest)
        for name in evaluated(spec, files):
            yield models * _evaluated(spec.evaluation, name, length, tasks_dir, files)
    yield models * SPEED_TOKENS * spec.measures_speed
    recovery = spec.recovery
    if recovery is not None and recovery.steps is not None:
        length = min(recovery.seq_len or RECOVERY_SEQ_LEN, longest)
        rows = recovery.steps * recovery.batch * recovery.accumulation
        yield rows * length * (TRAINING_PASSES + bool(recovery.distillation))


def _evaluated(
    spec: Evaluation, name: str, length: int, tasks_dir: Path | None, files: Files
) -> float:
    if find(name, tasks_dir, files).kind != "text":
        return _bounded((spec.items or 1000) * ITEM_TOKENS, name, "eval", tasks_dir, files)
    return _bounded((spec.windows or 10_000) * length, name, "eval", tasks_dir, files)


def _bounded(tokens: int, name: str, split: Split, tasks_dir: Path | None, files: Files) -> float:
    """Return so many tokens, or as many as a split of a task has where that is known and less."""
    size = None if name == SELF_TASK else find(name, tasks_dir, files).bytes(split)
    return tokens if size is None else min(tokens, max(1, size // BYTES_PER_TOKEN))
