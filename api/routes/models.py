"""What can be cut from a model, before a job is submitted."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query

from api import inspection, inspection_schemas
from api.deps import AnyKey, PartsDep

router = APIRouter(prefix="/v1/models", tags=["discovery"])


@router.get("/inspect", response_model=inspection_schemas.Inspection)
async def inspect_model(
    query: Annotated[inspection_schemas.InspectionQuery, Query()], _: AnyKey, parts: PartsDep
) -> inspection_schemas.Inspection:
    """Return facts of a model and the sizes that it can be cut to; no weight is read or fetched."""

    def inspect() -> inspection_schemas.Inspection:
        return inspection.inspect(query.model, query.multiple_of, parts.settings)

    if query.model.repo is not None:
        return await parts.hub_calls.run(inspect)
    return await anyio.to_thread.run_sync(inspect, limiter=parts.inspecting)
