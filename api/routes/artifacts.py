"""What a finished job leaves: report, manifest, files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Header
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from api import ranged, schemas
from api.deps import Downloader, Parts, PartsDep, Reader
from api.ids import JobId
from api.negotiation import prefers_html
from api.problems import CONFLICT, FILE, Problem
from api.resources import file_resource
from pruning_core.spec.report import Report
from store import artifacts, jobs
from store.artifact_store import Stored
from store.artifacts import attempt_prefix, report_page_key
from store.states import TERMINAL
from store.tables import Job

router = APIRouter(prefix="/v1/jobs", tags=["results"])


PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
}
"""The page holds text that models and users wrote: it may run nothing, fetch nothing and reach no cookie."""
_VARY = {"Vary": "Accept"}
_PAGE: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}


@router.get(
    "/{job_id}/report",
    response_model=None,
    responses={
        200: {"model": Report, "content": _PAGE, "description": "JSON, or the page"},
        **CONFLICT,
    },
)
def report(
    request: Request,
    job_id: JobId,
    caller: Reader,
    parts: PartsDep,
    accept: Annotated[str | None, Header()] = None,
) -> Response:
    """Return what was measured before and after: JSON, or the page where `Accept` prefers `text/html`."""
    with parts.database.read() as session:
        job = _finished(session, caller.project, job_id)
        content, page = job.report, _page_key(job)
    if prefers_html(accept) and (stored := parts.artifacts.stat(page)) is not None:
        return _page(request, parts, page, stored, _VARY)
    return JSONResponse(content, headers=_VARY)


@router.get(
    "/{job_id}/report.html",
    response_model=None,
    response_class=HTMLResponse,
    responses={
        200: {"content": _PAGE, "description": "One file that needs no other"},
        **CONFLICT,
    },
)
def report_page(request: Request, job_id: JobId, caller: Reader, parts: PartsDep) -> Response:
    """Return the report as a page for people."""
    with parts.database.read() as session:
        page = _page_key(_finished(session, caller.project, job_id))
    stored = parts.artifacts.stat(page)
    if stored is None:
        raise Problem("NOT_FOUND", "This job left no page; its report is there as JSON.")
    return _page(request, parts, page, stored, {})


@router.get("/{job_id}/manifest", response_model=schemas.Manifest, responses=CONFLICT)
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
        **CONFLICT,
        **FILE,
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
        sha256, media_type, key = row.sha256, row.media_type, row.key
    name = PurePosixPath(path).name
    return ranged.respond(
        request, parts.artifacts, key, sha256=sha256, filename=name, media_type=media_type
    )


def _page(
    request: Request, parts: Parts, key: str, stored: Stored, headers: Mapping[str, str]
) -> Response:
    """Send a job's page; from here, whatever the store offers: only so its policy goes with it."""
    return ranged.send(
        request,
        parts.artifacts,
        key,
        stored,
        headers={**PAGE_HEADERS, **headers},
        media_type="text/html",
    )


def _page_key(job: Job) -> str:
    return report_page_key(attempt_prefix(job.id, job.epoch))


def _finished(session: Session, project: str, job_id: str) -> Job:
    job = jobs.get(session, project=project, job_id=job_id)
    if job.report is not None:  # a job that misses its quality gates fails with its results kept
        return job
    hint = "it left no result" if job.status in TERMINAL else "wait until it has succeeded"
    raise Problem("STATE_CONFLICT", f"The job is {jobs.client_status(job)}: {hint}.")
