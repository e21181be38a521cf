"""Whether the tasks that a request names exist and hold enough text, as far as sizes tell; nothing is read or fetched."""

from __future__ import annotations

from pruning_core import settings
from pruning_core.datasets.data_used import DataUsed
from pruning_core.datasets.gate_metrics import check_gate
from pruning_core.datasets.tasks import Split, Task, evaluated
from pruning_core.errors import (
    DatasetInvalid,
    DatasetNotFound,
    DatasetTooSmall,
    DatasetUnreachable,
    TokensInvalid,
)
from pruning_core.spec.calibration import DEFAULT_SEQ_LEN, SELF_TASK, Calibration
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import DEFAULT_SEQ_LEN as RECOVERY_SEQ_LEN
from pruning_core.spec.recovery import Recovery


def check_data(prune: PruneSpec, data: DataUsed, limit: int | None) -> None:
    """Refuse tasks that are not there or too small for what the request does with them.

    Args:
        prune: The request.
        data: Where tasks come from.
        limit: Most tokens that the model reads, where it is known.

    Raises:
        DatasetInvalid, DatasetNotFound, DatasetTooSmall, DatasetUnreachable, TokensInvalid: which, and why.
    """
    if prune.recovery is not None:
        window = _window("recovery", prune.recovery.seq_len, limit, RECOVERY_SEQ_LEN)
        _check_recovery(prune.recovery, prune.calibration, window, data)
    if prune.needs_calibration:
        window = _window("calibration", prune.calibration.seq_len, limit, DEFAULT_SEQ_LEN)
        _check_calibration(prune, window, data)
    if prune.evaluation_tasks and prune.evaluation.harness == "secateur":
        window = _window("evaluation", prune.evaluation.seq_len, limit, DEFAULT_SEQ_LEN)
        _check_evaluation(prune, window, data)


def _check_calibration(prune: PruneSpec, window: int, data: DataUsed) -> None:
    spec = prune.calibration
    beside = -(-prune.held_out_windows // len(spec.tasks))
    if prune.reconstruction and len(spec.tasks) == 1 and spec.samples_of(spec.tasks[0]) == 1:
        raise DatasetTooSmall("Reconstruction needs two calibration windows: one is held out.")
    for asked in spec.tasks:
        task = data.find(asked.name)
        _check_split(task, "calibration")
        samples = (spec.samples_of(asked) or 1) + beside
        if spec.layout == "packed":
            _check_size(task, "calibration", samples, window)
        else:
            _check_items(task, samples)


def _check_recovery(params: Recovery, spec: Calibration, window: int, data: DataUsed) -> None:
    """Refuse tasks without text to train on; one window trains and one validates at least."""
    names = params.tasks or tuple(task.name for task in spec.tasks)
    for name in names:
        task = data.find(name)
        _check_split(task, "calibration")
        if len(names) == 1:
            _check_size(task, "calibration", 2, window)


def _check_evaluation(prune: PruneSpec, window: int, data: DataUsed) -> None:
    names = evaluated(prune, data.files)
    if SELF_TASK in names:
        raise DatasetInvalid(
            f"{SELF_TASK!r} is text that the dense model writes: it calibrates and is not evaluated.",
            pointer="/prune/evaluation/tasks",
        )
    for name in names:
        task = data.find(name)
        _check_split(task, "eval")
        _check_size(task, "eval", 1, window)
    for gate in prune.gates:
        if gate.task not in names:
            raise DatasetInvalid(f"The gate {gate.metric} bounds a task that is not evaluated.")
        check_gate(gate, data.find(gate.task).kind)


def _window(use: str, asked: int | None, limit: int | None, default: int) -> int:
    """Return the fewest tokens that a window can have, as far as the model's limit is known here."""
    if asked and limit and asked > limit:
        raise TokensInvalid(
            f"{use}.seq_len is {asked}, the model takes windows of at most {limit} tokens"
        )
    return asked or min(default, limit or 1)


def _check_split(task: Task, split: Split) -> None:
    """Refuse a split that is not there, or that nobody may fetch."""
    if task.origin == "hub" and settings.hub_offline():
        raise DatasetUnreachable(
            f"The data of task {task.name!r} lies on the hub, which this service may not reach (HF_HUB_OFFLINE).",
            suggestions=("upload the data with POST /v1/files", "name a local task"),
        )
    if task.bytes(split) == 0:
        part = "evaluation" if split == "eval" else "calibration"
        raise DatasetNotFound(
            f"Task {task.name!r} has no data for {part}.",
            suggestions=("name `evaluation.tasks`",) if split == "eval" else ("name another task",),
        )


def _check_items(task: Task, samples: int) -> None:
    """Refuse more samples than an upload has items, where each is a sample."""
    items = task.items("calibration")
    if items is not None and items < samples:
        raise DatasetTooSmall(
            f"Task {task.name!r} has {items} items for calibration; {samples} samples of one item each were asked for.",
            suggestions=("ask for fewer samples", "use the layout `packed`", "upload more items"),
        )


def _check_size(task: Task, split: Split, samples: int, seq_len: int) -> None:
    """A token takes at least one byte, so a text of fewer bytes can never fill the windows.

    Questions are not bounded so: their templates add text.
    """
    size = task.bytes(split)
    if task.kind == "text" and size is not None and size < samples * seq_len:
        raise DatasetTooSmall(
            f"Task {task.name!r} has {size} bytes of text for this; "
            f"{samples} windows of {seq_len} tokens need at least {samples * seq_len}.",
            suggestions=("ask for fewer samples", "use a shorter seq_len", "add another task"),
        )
