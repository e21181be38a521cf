"""What a finished job leaves: report, manifest, files."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from api import schemas
from api.conditional import matches
from api.deps import Downloader, PartsDep, Reader
from api.errors import Problem, problem_response
from api.ids import JobId
from api.resources import file_resource
from store import artifacts, jobs
from store.states import TERMINAL
from store.tables import Artifact, Job

router = APIRouter(prefix="/v1/jobs", tags=["results"])


@router.get("/{job_id}/report", response_model=None, responses={200: {"model": dict[str, Any]}})
def report(job_id: JobId, caller: Reader, parts: PartsDep) -> Response:
    """Return what was measured before and after: `pruning_core.spec.report.Report`."""
    with parts.database.read() as session:
        return JSONResponse(_finished(session, caller.project, job_id).report)


@router.get("/{job_id}/manifest", response_model=schemas.Manifest)
def manifest(job_id: JobId, caller: Reader, parts: PartsDep) -> schemas.Manifest:
    """List every file of the checkpoint with its size and sha256."""
    with parts.database.read() as session:
        _finished(session, caller.project, job_id)
        files = [file_resource(row) for row in artifacts.rows(session, job_id)]
    total = sum(file.bytes for file in files)
    return schemas.Manifest(job_id=job_id, total_bytes=total, files=files)


@router.head("/{job_id}/artifacts/{path:path}", response_model=None, include_in_schema=False)
@router.get(
    "/{job_id}/artifacts/{path:path}",
    response_model=None,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "The file"},
        206: {"content": {"application/octet-stream": {}}, "description": "The range asked for"},
        304: {"description": "`If-None-Match` names this file"},
    },
)
def download(
    request: Request, job_id: JobId, path: str, caller: Downloader, parts: PartsDep
) -> Response:
    """Return one file, or with `Range` (and `If-Range`) a part of it."""
    if not path.isprintable():
        raise Problem("NOT_FOUND", "The manifest lists no such file.")
    with parts.database.read() as session:
        _finished(session, caller.project, job_id)
        row = artifacts.row(session, job_id, path)
        headers, media_type, key = _headers(row), row.media_type, row.key
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    file = parts.artifacts.path(key)
    if not file.is_file():
        raise Problem("NOT_FOUND", "The file is no longer in the artifact store.")
    return RangedFile(file, filename=file.name, headers=headers, media_type=media_type)


class RangedFile(FileResponse):
    """A file whose refusals of a range are problems, like every other refusal."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, the range or the refusal."""
        refused = False

        async def send_or_refuse(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = True
                await _refusal(scope, self.path)(scope, receive, send)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, send_or_refuse)


def _refusal(scope: Scope, path: Any) -> Response:
    size = path.stat().st_size
    problem = Problem(
        "RANGE_NOT_SATISFIABLE",
        f"Give ranges as `bytes=first-last` within 0-{size - 1}.",
        headers={"Content-Range": f"bytes */{size}"},
    )
    return problem_response(Request(scope), problem)


def _headers(row: Artifact) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(row.sha256)).decode()
    return {
        "ETag": f'"{row.sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
    }


def _finished(session: Session, project: str, job_id: str) -> Job:
    job = jobs.get(session, project=project, job_id=job_id)
    if job.status == "succeeded":
        return job
    hint = "it left no result" if job.status in TERMINAL else "wait until it has succeeded"
    raise Problem("STATE_CONFLICT", f"The job is {jobs.client_status(job)}: {hint}.")
