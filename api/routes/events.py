"""A job's history: a JSON page, or a stream of server-sent events that resumes where it broke off."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import schemas, watching
from api.deps import Parts, PartsDep, Reader
from api.ids import JobId
from api.pages import MAX_PAGE
from api.problems import FieldError, Problem
from api.resources import event_resource
from store import events, jobs
from store.states import TERMINAL

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

KEEP_ALIVE_SECONDS = 15.0
RECONNECT_MILLISECONDS = 2000
_EVENT_ID = re.compile(r"^evt_(?P<seq>[0-9]{1,18})$")
_STREAM_RESPONSES: dict[int | str, dict[str, object]] = {
    200: {
        "model": schemas.EventPage,
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "A page of events, or with `Accept: text/event-stream` all of them as they come",
    }
}


@router.get("/{job_id}/events", response_model=None, responses=_STREAM_RESPONSES)
async def history(
    request: Request,
    job_id: JobId,
    caller: Reader,
    parts: PartsDep,
    after: Annotated[str | None, Query(max_length=64, description="Events after this id")] = None,
    limit: Annotated[int, Query(ge=1, description="At most 100 count")] = 100,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Answer one page; with `Accept: text/event-stream`, all events up to the job's end."""
    start = _sequence(last_event_id, "Last-Event-ID") or _sequence(after, "after")

    def exists() -> None:
        with parts.database.read() as session:
            jobs.get(session, project=caller.project, job_id=job_id)

    await watching.in_thread(parts, exists)
    if "text/event-stream" in request.headers.get("accept", ""):
        stream = _stream(parts, caller.project, job_id, start)
        return EventSourceResponse(
            stream, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
    size = min(limit, MAX_PAGE)
    page = await watching.in_thread(parts, partial(_page, parts, job_id, start, size))
    return JSONResponse(page.model_dump(mode="json"))


def _sequence(event_id: str | None, parameter: str) -> int:
    if not event_id:
        return 0
    match = _EVENT_ID.fullmatch(event_id)
    if match is None:
        error = FieldError(parameter=parameter, detail="not the id of an event")
        raise Problem(
            "VALIDATION_FAILED", f"{parameter} is an event's id, evt_...", errors=(error,)
        )
    return int(match["seq"])


def _page(parts: Parts, job_id: str, start: int, size: int) -> schemas.EventPage:
    with parts.database.read() as session:
        rows = events.after(session, job_id, after_seq=start, limit=size + 1)
        data = [event_resource(row) for row in rows]
    return schemas.EventPage(data=data[:size], has_more=len(data) > size)


def _look(
    parts: Parts, project: str, job_id: str, start: int
) -> tuple[list[schemas.Event], int, bool]:
    """Return the events after `start`, where they end, and whether there can be no more."""
    with parts.database.read() as session:
        # The status is read first: events written before it turned terminal are then all seen.
        job = jobs.get(session, project=project, job_id=job_id)
        ended = job.status in TERMINAL
        rows = events.after(session, job_id, after_seq=start, limit=MAX_PAGE)
        resources = [event_resource(row) for row in rows]
        end = rows[-1].seq if rows else start
    return resources, end, ended and len(resources) < MAX_PAGE


async def _stream(parts: Parts, project: str, job_id: str, start: int) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RECONNECT_MILLISECONDS)
    spoke_at = anyio.current_time()
    while True:
        look = partial(_look, parts, project, job_id, start)
        events, start, ended = await watching.in_thread(parts, look)
        for event in events:
            yield format_sse_event(data_str=event.model_dump_json(), event=event.type, id=event.id)
        if ended:
            return
        if events:
            spoke_at = anyio.current_time()
            continue
        if anyio.current_time() - spoke_at >= KEEP_ALIVE_SECONDS:
            yield KEEPALIVE_COMMENT
            spoke_at = anyio.current_time()
        await anyio.sleep(watching.POLL_SECONDS)
