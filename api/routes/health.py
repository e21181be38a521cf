"""Liveness and readiness, for probes without a key."""

from __future__ import annotations

from fastapi import APIRouter

from api import schemas
from api.deps import PartsDep

router = APIRouter(tags=["health"])


@router.get("/livez", response_model=schemas.Health, response_model_exclude_none=True)
async def alive() -> schemas.Health:
    """Tell that the process answers; looks at nothing else."""
    return schemas.Health(status="ok")


@router.get("/readyz", response_model=schemas.Health)
def ready(parts: PartsDep) -> schemas.Health:
    """Tell whether the database answers (503 where not); the broker may be away without harm."""
    parts.database.ping()
    return schemas.Health(status="ready", database="ok", broker=parts.broker.state())
