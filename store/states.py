"""The life cycle: which status may follow which, and the only code that assigns one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from store.clock import db_now
from store.errors import StateConflict
from store.tables import Event, Job

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
EventType = Literal[
    "job.queued",
    "job.started",
    "job.progress",
    "job.requeued",
    "job.cancel_requested",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
]

STATUSES: Final[tuple[Status, ...]] = get_args(Status)
ALLOWED: Final[Mapping[str, frozenset[Status]]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled", "queued"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
TERMINAL: Final[frozenset[str]] = frozenset(s for s, after in ALLOWED.items() if not after)


def begin(session: Session, values: Mapping[str, Any], *, actor: str) -> Job:
    """Insert a job as `queued`, with its first event."""
    now = db_now()
    row = insert(Job).values(
        status="queued", created_at=now, queued_at=now, run_after=now, **values
    )
    job = session.scalars(row.returning(Job)).one()
    _record(session, job, None, actor=actor, type="job.queued", detail={})
    return job


def transition(
    session: Session,
    job: Job,
    to: Status,
    *,
    actor: str,
    type: EventType,  # noqa: A002 - the event's own word for it
    detail: Mapping[str, Any],
    **values: Any,
) -> Job:
    """Move a job that is still as it was read: one UPDATE, one event row.

    Raises:
        StateConflict: The move is not allowed, or the row changed since.
    """
    before = job.status
    if to not in ALLOWED[before]:
        raise StateConflict(f"job {job.id} is {before} and cannot become {to}")
    moved = _update(session, job, {"status": to, **values})
    _record(session, moved, before, actor=actor, type=type, detail=detail)
    return moved


def note(
    session: Session,
    job: Job,
    *,
    actor: str,
    type: EventType,  # noqa: A002
    detail: Mapping[str, Any],
    **values: Any,
) -> Job:
    """Change what a client sees of a job without moving it, and say so in an event."""
    job = _update(session, job, values)
    _record(session, job, job.status, actor=actor, type=type, detail=detail)
    return job


def amend(session: Session, job: Job, **values: Any) -> Job:
    """Change what a client sees of a job without moving it, silently."""
    return _update(session, job, values)


def _update(session: Session, job: Job, values: Mapping[str, Any]) -> Job:
    same = (Job.id == job.id, Job.status == job.status, Job.epoch == job.epoch)
    statement = update(Job).where(*same).values(version=Job.version + 1, **values).returning(Job)
    options = {"populate_existing": True, "synchronize_session": False}
    changed = session.scalars(statement, execution_options=options).one_or_none()
    if changed is None:
        raise StateConflict(f"job {job.id} changed in the meantime: read it again")
    return changed


def _record(
    session: Session,
    job: Job,
    before: str | None,
    *,
    actor: str,
    type: EventType,  # noqa: A002
    detail: Mapping[str, Any],
) -> None:
    session.execute(
        insert(Event).values(
            job_id=job.id,
            at=db_now(),
            type=type,
            from_status=before,
            to_status=job.status,
            epoch=job.epoch,
            actor=actor,
            detail=dict(detail),
        )
    )
