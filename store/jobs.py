"""Jobs as the front end sees them: submit, read, list, cancel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session, aliased, defer

from store import idempotency as keys
from store import paging
from store.clock import db_now
from store.errors import JobNotFound, StateConflict
from store.idempotency import Idempotency
from store.paging import Columns, Order, Page, Position
from store.states import TERMINAL, begin, note, transition
from store.tables import IS_QUEUED, Job, JobLabel, new_id

__all__ = [
    "Created",
    "Idempotency",
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
        "method": spec["prune"]["method"]["name"],
        "model": spec["model"]["ref"],
        "spec_digest": spec_digest,
        "created_by": created_by,
        "notes": list(notes),
        "estimate": estimate,
    }
    job = begin(session, values, actor=created_by)
    session.add_all(
        JobLabel(job_id=job.id, key=key, value=value, project=project, created_at=job.created_at)
        for key, value in job.labels.items()
    )
    session.flush()
    return Created(job, replayed=False)


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
    order: Order = "desc",
) -> Page[Job]:
    """Return jobs, without their `report`, by time of creation; `status` and `model` are what a client sees and sends.

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
    }
    chosen, columns = _labelled(project, labels or {})
    chosen = chosen.where(*_conditions(status, method, model), *_naming(name, begins))
    if created_after is not None:
        chosen = chosen.where(columns[0] > created_after)
    return paging.read(session, chosen, columns, filters, limit=limit, cursor=cursor, order=order)


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


def _labelled(project: str, labels: Mapping[str, str]) -> tuple[Select[Job], Columns]:
    """Select a project's jobs with all of these labels, and return what gives their order.

    The order is the first label's where there is one, so that its index leads to the jobs and not they to it.
    """
    chosen = select(Job).options(defer(Job.report, raiseload=True))
    if not labels:
        return chosen.where(Job.project == project), (Job.created_at, Job.id)
    first, *more = (aliased(JobLabel) for _ in labels)
    chosen = chosen.select_from(first).join(Job, Job.id == first.job_id)
    for label in more:
        chosen = chosen.join(label, label.job_id == first.job_id)
    for label, (key, value) in zip((first, *more), labels.items(), strict=True):
        chosen = chosen.where(label.project == project, label.key == key, label.value == value)
    return chosen, (first.created_at, first.job_id)


def _conditions(
    status: str | None, method: str | None, model: str | None
) -> Iterator[ColumnElement[bool]]:
    if status is not None:
        yield _seen_as(status)
    if method is not None:
        yield Job.method == method
    if model is not None:
        yield Job.model == model


def _naming(name: str | None, begins: str | None) -> Iterator[ColumnElement[bool]]:
    if name is not None:
        yield Job.name == name
    if begins is not None:
        yield paging.begins(Job.id, begins)


def _seen_as(status: str) -> ColumnElement[bool]:
    if status == "cancelling":
        return and_(Job.status == "running", Job.cancel_requested_at.is_not(None))
    if status == "running":
        return and_(Job.status == "running", Job.cancel_requested_at.is_(None))
    return Job.status == status


def _ended(status: str) -> str:
    return "been cancelled" if status == "cancelled" else status
