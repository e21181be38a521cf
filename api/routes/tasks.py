"""The catalogue of calibration and evaluation tasks."""

from __future__ import annotations

from fastapi import APIRouter

from api import schemas
from api.deps import AnyKey, PartsDep
from pruning_core import settings
from pruning_core.datasets import tasks

router = APIRouter(prefix="/v1/tasks", tags=["discovery"])


@router.get("", response_model=schemas.TaskList)
def list_tasks(_: AnyKey, parts: PartsDep) -> schemas.TaskList:
    """Return the shipped tasks and the operator's, and whether the data of each can be had."""
    catalogue = tasks.catalogue(parts.settings.tasks_dir)
    hub_answers = parts.hub.answers()
    return schemas.TaskList(
        data=[_resource(task, hub_answers=hub_answers) for task in catalogue.values()]
    )


def _resource(task: tasks.Task, *, hub_answers: bool) -> schemas.Task:
    reason = _out_of_reach(task, hub_answers=hub_answers)
    declared = task.declaration
    return schemas.Task(
        name=task.name,
        kind=task.kind,
        description=declared.description,
        language=declared.language,
        domain=declared.domain,
        licence=declared.licence,
        built_in=task.origin == "built-in",
        origin=task.origin,
        calibration_bytes=task.bytes("calibration"),
        evaluation_bytes=task.bytes("eval"),
        reachable=reason is None,
        reason=reason,
    )


def _out_of_reach(task: tasks.Task, *, hub_answers: bool) -> str | None:
    if not task.has_data:
        return f"The operator has no folder {task.name!r} with its data."
    if task.origin != "hub" or hub_answers:
        return None
    if settings.hub_offline():
        return "The hub is switched off here (HF_HUB_OFFLINE)."
    return "The hub does not answer."
