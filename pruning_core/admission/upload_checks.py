"""Whether uploaded files are used as their senders allow, and nothing is measured on what fits the model."""

from __future__ import annotations

from pruning_core.datasets.tasks import Files, evaluated
from pruning_core.errors import DataLeakage, DatasetNotFound
from pruning_core.spec.prune import PruneSpec


def check_uploads(prune: PruneSpec, files: Files) -> None:
    """Refuse an upload in a role that its sender has ruled out.

    Raises:
        DatasetNotFound, DataLeakage: which.
    """
    for name, pointer in _fitted(prune).items():
        if name in files and files[name].use == "evaluation":
            raise DatasetNotFound(
                f"{name} was uploaded for evaluation alone: a model cannot be fitted to it.",
                suggestions=("upload it with the use `calibration` or `both`",),
                pointer=pointer,
            )
    for name in prune.evaluation.tasks or ():
        if name in files and files[name].use == "calibration":
            raise DataLeakage(
                f"{name} was uploaded for calibration alone: evaluating on it would measure what the model was fitted to.",
                suggestions=("name another evaluation task", "upload it with the use `both`"),
                pointer="/prune/evaluation/tasks",
            )


def check_same_bytes(prune: PruneSpec, files: Files) -> None:
    """Refuse to evaluate on the very bytes that the model is fitted to, uploaded a second time for another use.

    Raises:
        DataLeakage: which.
    """
    if prune.evaluation.harness != "secateur":
        return
    fitted = {files[name].sha256: name for name in _fitted(prune) if name in files}
    for name in evaluated(prune, files):
        other = fitted.get(files[name].sha256) if name in files else None
        if other not in (None, name):
            raise DataLeakage(
                f"{name}, which is evaluated, holds the same bytes as {other}, to which the model is fitted.",
                suggestions=("upload the data once, with the use `both`", "evaluate on other data"),
                pointer="/prune/evaluation/tasks",
            )


def _fitted(prune: PruneSpec) -> dict[str, str]:
    """Return the tasks whose calibration split is read, by name, each with the field that names it."""
    recovery = prune.recovery
    named: dict[str, str] = {}
    if recovery is not None and recovery.tasks is not None:
        named = dict.fromkeys(recovery.tasks, "/prune/recovery/tasks")
    if prune.needs_calibration or (recovery is not None and recovery.tasks is None):
        calibrating = (task.name for task in prune.calibration.tasks)
        named |= dict.fromkeys(calibrating, "/prune/calibration/tasks")
    return named
