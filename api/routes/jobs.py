"""Jobs: submit, list, read (and wait), cancel."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from starlette.requests import Request

from api import expectations, schemas, watching
from api.conditional import matches
from api.deps import Caller, Parts, PartsDep, Reader, Writer
from api.ids import JobId
from api.pages import MAX_PAGE, link_next
from api.problems import CONFLICT, FieldError, Problem
from api.resources import job_resource, submitted_resource
from api.strict_json import StrictRoute
from pruning_core.spec.base import digest
from store import jobs
from store.states import TERMINAL

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

RETRY_AFTER = {"Retry-After": "2"}
MAX_WAIT = 60
_IDEMPOTENCY_KEY = re.compile(r"^[\x21-\x7e]{1,255}$")


@router.post("", status_code=202, response_model=schemas.Job, responses=CONFLICT)
def submit(
    body: schemas.JobSubmission,
    caller: Writer,
    parts: PartsDep,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> schemas.Job:
    """Check everything that can be known now, store the job, answer at once."""
    idempotency = _idempotency(idempotency_key, body)
    admission = expectations.admit(body, caller, parts)
    refusal = admission.refusal
    if refusal is not None and idempotency is None:
        raise refusal
    spec = schemas.JobSpec(model=body.model, prune=admission.prune)
    with parts.database.write() as session:
        created = jobs.create(
            session,
            project=caller.project,
            created_by=caller.key_id,
            spec=spec.model_dump(mode="json"),
            spec_digest=digest(spec),
            name=body.name,
            labels=body.labels,
            notes=admission.notes,
            estimate=admission.estimate,
            idempotency=idempotency,
        )
        # A repeated request is answered as before even where its model has gone since, or it stored its preset.
        if refusal is not None and not created.replayed:
            raise refusal
        resource = submitted_resource(created.job)
    parts.doorbell.ring(resource.id)
    response.headers.update({**RETRY_AFTER, "Location": resource.links.self})
    if created.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return resource


@router.get("", response_model=schemas.JobPage)
def list_jobs(
    request: Request,
    response: Response,
    filters: Annotated[schemas.JobFilters, Query()],
    caller: Reader,
    parts: PartsDep,
) -> schemas.JobPage:
    """Return one page of this project's jobs, newest first."""
    with parts.database.read() as session:
        page = jobs.page(
            session,
            project=caller.project,
            status=filters.status,
            method=filters.method,
            model=filters.model,
            labels=dict(label.split(":", 1) for label in filters.label),
            created_after=filters.created_after,
            name=filters.name,
            begins=filters.id,
            limit=min(filters.limit, MAX_PAGE),
            cursor=filters.cursor,
            order=filters.order,
        )
        data = [job_resource(job) for job in page.items]
    link_next(request, response, page.next_cursor)
    more = page.next_cursor is not None
    return schemas.JobPage(data=data, has_more=more, next_cursor=page.next_cursor)


@router.get(
    "/{job_id}",
    response_model=schemas.Job,
    responses={304: {"description": "`If-None-Match` names the job as it still is"}},
)
async def read_job(
    job_id: JobId,
    caller: Reader,
    parts: PartsDep,
    response: Response,
    wait: Annotated[
        int,
        Query(
            ge=0,
            le=MAX_WAIT,
            description="Seconds to wait for the job to end, or with `If-None-Match` to change.",
        ),
    ] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> schemas.Job | Response:
    """Return the job, at once or when it has ended."""

    def is_enough(job: schemas.Job) -> bool:
        changed = if_none_match is not None and not matches(if_none_match, job.etag)
        return changed or job.status in TERMINAL

    job = await watching.until(parts, lambda: _read(parts, caller, job_id), is_enough, seconds=wait)
    headers = {"ETag": job.etag, **({} if job.status in TERMINAL else RETRY_AFTER)}
    if matches(if_none_match, job.etag):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return job


@router.post("/{job_id}/cancel", status_code=202, response_model=schemas.Job, responses=CONFLICT)
def cancel(job_id: JobId, caller: Writer, parts: PartsDep, response: Response) -> schemas.Job:
    """Ask for the end of the job; `cancelled` is shown once its process is gone."""
    with parts.database.write() as session:
        job = jobs.cancel(session, project=caller.project, job_id=job_id, actor=caller.key_id)
        resource = job_resource(job)
    response.headers["Location"] = resource.links.self
    if resource.status not in TERMINAL:
        response.headers.update(RETRY_AFTER)
    return resource


def _read(parts: Parts, caller: Caller, job_id: str) -> schemas.Job:
    with parts.database.read() as session:
        job = jobs.get(session, project=caller.project, job_id=job_id)
        return job_resource(job, position=jobs.queue_position(session, job))


def _idempotency(key: str | None, body: schemas.JobSubmission) -> jobs.Idempotency | None:
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        detail = "1 to 255 printable ASCII characters without spaces"
        error = FieldError(parameter="Idempotency-Key", detail=detail)
        raise Problem("VALIDATION_FAILED", f"Idempotency-Key: {detail}", errors=(error,))
    return jobs.Idempotency(key=key, fingerprint=digest(body))
