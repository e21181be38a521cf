"""The catalogue of presets: those that ship with the package, and those that the project's jobs found."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter

from api import schemas
from api.deps import PartsDep, Reader
from pruning_core.admission.presets import Preset, shipped
from store import presets

router = APIRouter(prefix="/v1/presets", tags=["discovery"])


@router.get("", response_model=schemas.PresetList)
def list_presets(caller: Reader, parts: PartsDep) -> schemas.PresetList:
    """Return every preset that this project's jobs can name; of equal names, the one that counts."""
    known = {name: _resource(name, preset) for name, preset in shipped().items()}
    with parts.database.read() as session:
        for name, row in presets.of_project(session, caller.project).items():
            preset = Preset.model_validate(row.coefficients)
            known[name] = _resource(name, preset, row.job_id, row.created_at)
    return schemas.PresetList(data=[known[name] for name in sorted(known)])


def _resource(
    name: str, preset: Preset, job_id: str | None = None, created_at: datetime | None = None
) -> schemas.Preset:
    return schemas.Preset(
        name=name,
        coefficients=schemas.Coefficients(**preset.model_dump(exclude={"found"})),
        found=preset.found,
        job_id=job_id,
        created_at=created_at,
    )
