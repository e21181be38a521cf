"""The catalogue of calibration and evaluation tasks."""

from __future__ import annotations

from fastapi import APIRouter

from api import schemas
from api.deps import AnyKey, PartsDep
from pruning_core.intake import tasks

router = APIRouter(prefix="/v1/tasks", tags=["discovery"])


@router.get("", response_model=schemas.TaskList)
def list_tasks(_: AnyKey, parts: PartsDep) -> schemas.TaskList:
    """Return the built-in task and those of the operator's folder."""
    found = tasks.catalogue(parts.settings.tasks_dir)
    return schemas.TaskList(
        data=[
            schemas.Task(
                name=task.name,
                kind=task.kind,
                description=task.description,
                built_in=task.built_in,
                calibration_bytes=task.calibration_bytes,
                evaluation_bytes=task.evaluation_bytes,
            )
            for task in found.values()
        ]
    )
