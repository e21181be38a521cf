"""Jobs as the front end sees them: submit, read, list, cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session, defer

from store import idempotency as keys
from store import paging
from store.clock import db_now
from store.documents import member
from store.errors import JobNotFound, StateConflict
from store.idempotency import Idempotency
from store.paging import Columns, Position
from store.states import TERMINAL, begin, note, transition
from store.tables import IS_QUEUED, Job, new_id

__all__ = [
    "Created",
    "Idempotency",
    "Page",
    "cancel",
    "client_status",
    "create",
    "get",
    "page",
    "queue_position",
]


_COLUMNS: Columns = (Job.created_at, Job.id)


@dataclass(frozen=True)
class Created:
    """The job; `replayed` when an earlier request with the same Idempotency-Key had made it."""

    job: Job
    replayed: bool


@dataclass(frozen=True)
class Page:
    """Some jobs (their `report` is not loaded), and where the next page begins."""

    items: list[Job]
    next_cursor: str | None


def create(
    session: Session,
    *,
    project: str,
    created_by: str,
    spec: dict[str, Any],
    spec_digest: str,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    estimate: dict[str, Any] | None = None,
    idempotency: Idempotency | None = None,
) -> Created:
    """Write job, first event and idempotency record, or return what the same key made before.

    Raises:
        IdempotencyConflict: The key came with another request before.
    """
    job_id = new_id("job")
    if idempotency is not None:
        earlier = keys.reserve(session, idempotency, project=project, job_id=job_id)
        if earlier is not None:
            return Created(get(session, project=project, job_id=earlier), replayed=True)
    values = {
        "id": job_id,
        "project": project,
        "name": name,
        "labels": dict(labels or {}),
        "spec": spec,
        "spec_digest": spec_digest,
        "created_by": created_by,
        "notes": list(notes),
        "estimate": estimate,
    }
    return Created(begin(session, values, actor=created_by), replayed=False)


def get(session: Session, *, project: str, job_id: str) -> Job:
    """Return one job as it is now.

    Raises:
        JobNotFound: None of this id, or it is another project's.
    """
    return _find(session, select(Job), project=project, job_id=job_id)


def page(
    session: Session,
    *,
    project: str,
    status: str | None = None,
    method: str | None = None,
    model: str | None = None,
    labels: Mapping[str, str] | None = None,
    created_after: datetime | None = None,
    name: str | None = None,
    begins: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> Page:
    """Return jobs by time of creation; `status` and `model` are what a client sees and sends.

    `begins` is `job_` and the first characters of a ULID.

    Raises:
        InvalidCursor: Not ours, or made with other filters.
    """
    filters = {
        "project": project,
        "status": status,
        "method": method,
        "model": model,
        "labels": dict(labels or {}),
        "created_after": created_after,
        "name": name,
        "begins": begins,
        "order": order,
    }
    chosen = select(Job).options(defer(Job.report, raiseload=True)).where(Job.project == project)
    chosen = chosen.where(*_conditions(status, method, model, labels or {}, created_after))
    if name is not None:
        chosen = chosen.where(Job.name == name)
    if begins is not None:
        chosen = chosen.where(paging.begins(Job.id, begins))
    if cursor is not None:
        chosen = chosen.where(paging.beyond(_COLUMNS, paging.decode(cursor, filters), order))
    found = list(session.scalars(chosen.order_by(*paging.by(_COLUMNS, order)).limit(limit + 1)))
    items = found[:limit]
    more = len(found) > limit
    last = Position(items[-1].created_at, items[-1].id) if more else None
    return Page(items, paging.encode(last, filters) if last else None)


def cancel(session: Session, *, project: str, job_id: str, actor: str) -> Job:
    """End a queued job at once, ask the worker of a running one to; asking again changes nothing.

    Raises:
        JobNotFound: None of this id in the project.
        StateConflict: It has ended already.
    """
    job = _find(session, select(Job).with_for_update(), project=project, job_id=job_id)
    if job.status in TERMINAL:
        raise StateConflict(
            f"job {job_id} has already {_ended(job.status)}: nothing is left to cancel"
        )
    if job.cancel_requested_at is not None:
        return job
    now = db_now()
    if job.status == "queued":
        times = {"cancel_requested_at": now, "finished_at": now}
        return transition(
            session, job, "cancelled", actor=actor, type="job.cancelled", detail={}, **times
        )
    return note(
        session, job, actor=actor, type="job.cancel_requested", detail={}, cancel_requested_at=now
    )


def queue_position(session: Session, job: Job) -> int | None:
    """Return 1 for the job that has waited longest; None unless queued. Fairness between projects may reorder."""
    if job.status != "queued":
        return None
    here = Position(job.created_at, job.id)
    earlier = paging.beyond(_COLUMNS, here, "desc")
    ahead = select(func.count()).select_from(Job).where(IS_QUEUED, earlier)
    return session.scalars(ahead).one() + 1


def client_status(job: Job) -> str:
    """Return the status that clients see: `cancelling` while a running job is being stopped."""
    if job.status == "running" and job.cancel_requested_at is not None:
        return "cancelling"
    return job.status


def _find(session: Session, chosen: Select[Job], *, project: str, job_id: str) -> Job:
    chosen = chosen.where(Job.id == job_id, Job.project == project)
    job = session.scalar(chosen, execution_options={"populate_existing": True})
    if job is None:
        raise JobNotFound(job_id)
    return job


def _conditions(
    status: str | None,
    method: str | None,
    model: str | None,
    labels: Mapping[str, str],
    created_after: datetime | None,
) -> list[ColumnElement[bool]]:
    wanted = [member(Job.labels, (key,)) == value for key, value in labels.items()]
    if status is not None:
        wanted.append(_seen_as(status))
    if method is not None:
        wanted.append(member(Job.spec, ("prune", "method", "name")) == method)
    if model is not None:
        wanted.append(member(Job.spec, ("model", "ref")) == model)
    if created_after is not None:
        wanted.append(Job.created_at > created_after)
    return wanted


def _seen_as(status: str) -> ColumnElement[bool]:
    if status == "cancelling":
        return and_(Job.status == "running", Job.cancel_requested_at.is_not(None))
    if status == "running":
        return and_(Job.status == "running", Job.cancel_requested_at.is_(None))
    return Job.status == status


def _ended(status: str) -> str:
    return "been cancelled" if status == "cancelled" else status
