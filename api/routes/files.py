"""Files: upload data of your own, list, read, delete."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request

from api import ranged, schemas, uploads
from api.deps import Downloader, PartsDep, Reader, Writer
from api.examining import examine
from api.ids import FileId
from api.pages import MAX_PAGE, link_next
from api.problems import CONFLICT, FILE
from api.resources import upload_resource
from store import files

router = APIRouter(prefix="/v1/files", tags=["files"])

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "use": {"type": "string", "enum": ["calibration", "evaluation", "both"]},
            "name": {"type": "string"},
        },
    }
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {**dict.fromkeys(uploads.FORMATS, _BYTES), uploads.FORM: _FORM},
    }
}
_MEDIA_TYPES = {
    "jsonl": "application/jsonl",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "text": "text/plain; charset=utf-8",
}


@router.post(
    "",
    status_code=201,
    response_model=schemas.File,
    responses={
        200: {"model": schemas.File, "description": "The project has this very file already"},
        **CONFLICT,
    },
    openapi_extra=_BODY,
)
async def upload(
    request: Request,
    response: Response,
    options: Annotated[schemas.FileOptions, Query()],
    caller: Writer,
    parts: PartsDep,
) -> schemas.File:
    """Take a file, check every line of it, store it; the same bytes for the same use are stored once."""
    with parts.drafts.lend() as draft:
        limit = parts.settings.max_file_bytes
        received = await uploads.receive(request, options, draft, limit=limit)
        examined = await examine(parts, draft, declared=received.format, name=received.name)
        keep = partial(uploads.keep, parts, caller, draft, received, examined)
        is_new, resource = await run_in_threadpool(keep)
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/files/{resource.id}"
    return resource


@router.get("", response_model=schemas.FilePage)
def list_files(
    request: Request,
    response: Response,
    filters: Annotated[schemas.FileFilters, Query()],
    caller: Reader,
    parts: PartsDep,
) -> schemas.FilePage:
    """Return one page of this project's files, newest first."""
    with parts.database.read() as session:
        page = files.page(
            session,
            project=caller.project,
            use=filters.use,
            name=filters.name,
            begins=filters.id,
            limit=min(filters.limit, MAX_PAGE),
            cursor=filters.cursor,
            order=filters.order,
        )
        data = [upload_resource(row) for row in page.items]
    link_next(request, response, page.next_cursor)
    more = page.next_cursor is not None
    return schemas.FilePage(data=data, has_more=more, next_cursor=page.next_cursor)


@router.get("/{file_id}", response_model=schemas.File)
def read_file(file_id: FileId, caller: Reader, parts: PartsDep) -> schemas.File:
    """Return what is known of one file."""
    with parts.database.read() as session:
        return upload_resource(files.get(session, project=caller.project, file_id=file_id))


@router.head("/{file_id}/content", response_model=None, include_in_schema=False)
@router.get(
    "/{file_id}/content",
    response_model=None,
    responses={
        200: {"content": dict.fromkeys(uploads.FORMATS, _BYTES), "description": "The file"},
        206: {"content": dict.fromkeys(uploads.FORMATS, _BYTES), "description": "The range"},
        **FILE,
    },
)
def content(request: Request, file_id: FileId, caller: Downloader, parts: PartsDep) -> Response:
    """Return the bytes as they were uploaded, or with `Range` (and `If-Range`) a part of them."""
    with parts.database.read() as session:
        row = files.get(session, project=caller.project, file_id=file_id)
    return ranged.respond(
        request,
        parts.artifacts,
        row.key,
        sha256=row.sha256,
        filename=row.name,
        media_type=_MEDIA_TYPES[row.format],
    )


@router.delete("/{file_id}", status_code=204, response_model=None, responses=CONFLICT)
def delete(file_id: FileId, caller: Writer, parts: PartsDep) -> None:
    """Delete a file that no waiting or running job needs."""
    with parts.database.write() as session:
        key = files.remove(session, project=caller.project, file_id=file_id)
    parts.artifacts.delete(key)
