"""Jobs as workers see them: claim, keep, report, end. Every write carries the attempt's epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, case, func, or_, select, update
from sqlalchemy.orm import Session

from pruning_core.spec.progress import Progress
from store import presets
from store.artifacts import ArtifactRow
from store.attempt_end import RELEASED, end, requeue_or_give_up
from store.clock import db_now, db_now_plus
from store.errors import LeaseLost
from store.presets import NewPreset
from store.states import Status, amend, note, transition
from store.tables import IS_QUEUED, IS_RUNNING, Artifact, Job

_WORKER_LOST: Final = {
    "code": "WORKER_LOST",
    "class": "system",
    "retryable": True,
    "detail": "the worker fell silent and its lease lapsed",
    "suggestions": [],
}


@dataclass(frozen=True)
class Claim:
    """A job that is now this worker's; `epoch` goes into every later call."""

    job_id: str
    epoch: int
    attempt: int
    spec: dict[str, Any]
    project: str
    name: str | None
    earlier_seconds: float
    """From the job's first claim to this one."""


@dataclass(frozen=True)
class Signals:
    """What the front end wants of a running attempt."""

    cancel: bool


def claim(session: Session, *, owner: str, lease_seconds: float) -> Claim | None:
    """Take the best eligible job: of the project with the fewest running, the one that has waited longest."""
    job = _next_eligible(session)
    if job is None:
        return None
    job = transition(
        session,
        job,
        "running",
        actor=owner,
        type="job.started",
        detail={"attempt": job.attempt + 1},
        status_reason=None,
        owner=owner,
        lease_until=db_now_plus(lease_seconds),
        epoch=job.epoch + 1,
        attempt=job.attempt + 1,
        started_at=func.coalesce(Job.started_at, db_now()),
        progress_at=db_now(),
    )
    assert job.started_at is not None
    assert job.progress_at is not None
    earlier = (job.progress_at - job.started_at).total_seconds()
    return Claim(job.id, job.epoch, job.attempt, job.spec, job.project, job.name, earlier)


def heartbeat(session: Session, job_id: str, epoch: int, *, lease_seconds: float) -> Signals:
    """Renew the lease; return what is asked of the attempt."""
    renewed = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.epoch == epoch, Job.status == "running")
        .values(lease_until=db_now_plus(lease_seconds))
        .returning(Job.cancel_requested_at),
        execution_options={"synchronize_session": False},
    ).one_or_none()
    if renewed is None:
        raise _lost(job_id, epoch)
    return Signals(cancel=renewed.cancel_requested_at is not None)


def record_progress(
    session: Session, job_id: str, epoch: int, progress: Progress, *, in_event: bool = False
) -> None:
    """Show how far the attempt is; a finished block or a new phase makes an event, and what `in_event` asks for."""
    job = _held(session, job_id, epoch)
    values = {
        "progress": progress.model_dump(mode="json", exclude={"block"}),
        "phase": progress.phase,
        "progress_at": db_now(),
    }
    if not in_event and progress.block is None and progress.phase == job.phase:
        amend(session, job, **values)
        return
    detail = {
        "phase": progress.phase,
        "step": progress.step,
        "total_steps": progress.total_steps,
        "unit": progress.unit,
        "batches": progress.batches,
        "percent": progress.percent,
        "seconds_remaining": progress.seconds_remaining,
        "block": progress.block.block if progress.block else None,
    }
    note(session, job, actor=_owner(job), type="job.progress", detail=detail, **values)


def record_resolved(session: Session, job_id: str, epoch: int, resolved: dict[str, Any]) -> None:
    """Keep what the references turned out to mean: commit, digests, versions."""
    amend(session, _held(session, job_id, epoch), resolved=resolved)


def finish(
    session: Session,
    job_id: str,
    epoch: int,
    *,
    report: dict[str, Any],
    result: dict[str, Any],
    artifacts: Sequence[ArtifactRow],
    preset: NewPreset | None = None,
    error: dict[str, Any] | None = None,
) -> Status:
    """End with a result; return `cancelled` instead, and store nothing, where the client's cancel was first.

    With an error the job has failed, its result is kept all the same, and no preset is stored. A preset whose name another
    job has taken meanwhile is not stored either; report and result warn of it.
    """
    job = _held(session, job_id, epoch)
    values = {"report": report, "result": result}
    wanted = preset if job.cancel_requested_at is None else None
    if wanted is not None and (error is not None or not presets.add(session, wanted, job=job)):
        values = {key: _warned(document, wanted.name) for key, document in values.items()}
    if error is None:
        reached = end(session, job, "succeeded", actor=_owner(job), detail={}, **values)
    else:
        detail = {"error": error}
        reached = end(
            session, job, "failed", actor=_owner(job), detail=detail, error=error, **values
        )
    if reached != "cancelled":
        session.add_all(Artifact(job_id=job_id, epoch=epoch, **vars(row)) for row in artifacts)
        session.flush()
    return reached


def fail(session: Session, job_id: str, epoch: int, error: dict[str, Any]) -> Status:
    """End with an error payload; return `cancelled` instead where the client's cancel was first."""
    job = _held(session, job_id, epoch)
    return end(session, job, "failed", actor=_owner(job), detail={"error": error}, error=error)


def cancelled(session: Session, job_id: str, epoch: int) -> Status:
    """End as cancelled; call it when no process of the attempt is left."""
    job = _held(session, job_id, epoch)
    return end(session, job, "cancelled", actor=_owner(job), detail={})


def release(session: Session, job_id: str, epoch: int, *, reason: str) -> Status:
    """Give the job back unharmed, as a worker that drains does: the attempt does not count."""
    job = _held(session, job_id, epoch)
    if job.cancel_requested_at is not None:
        return end(session, job, "cancelled", actor=_owner(job), detail={})
    values = {**RELEASED, "attempt": job.attempt - 1, "status_reason": reason}
    detail = {"reason": reason}
    transition(
        session, job, "queued", actor=_owner(job), type="job.requeued", detail=detail, **values
    )
    return "queued"


def crashed(
    session: Session,
    job_id: str,
    epoch: int,
    *,
    error: dict[str, Any],
    max_crashes: int,
    backoff: float = 0,
) -> Status:
    """The child died: queue the job again after `backoff` seconds, or give it up as POISON."""
    job = _held(session, job_id, epoch)
    return requeue_or_give_up(
        session, job, actor=_owner(job), error=error, max_crashes=max_crashes, backoff=backoff
    )


def rescue(session: Session, *, max_crashes: int, limit: int = 100) -> list[str]:
    """End or queue again what silent workers held, in its old place; return the ids."""
    lapsed = (
        select(Job)
        .where(IS_RUNNING, Job.lease_until < db_now())
        .order_by(Job.lease_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    jobs = list(session.scalars(lapsed, execution_options={"populate_existing": True}))
    for job in jobs:
        requeue_or_give_up(
            session,
            job,
            actor="reconciler",
            error=_WORKER_LOST,
            max_crashes=max_crashes,
            backoff=rescue_backoff(job.crash_count),
        )
    return [job.id for job in jobs]


def rescue_backoff(crash_count: int) -> float:
    """Return the seconds that a job waits after its worker was lost: none at first, then 10, 20 .. 60."""
    return min(60.0, 5.0 * 2**crash_count) if crash_count else 0.0


def to_ring(session: Session, *, limit: int) -> list[str]:
    """Return queued jobs for which a bell is due, longest waiting first, and mark them as rung."""
    pause = case({1: 5, 2: 10, 3: 20, 4: 40}, value=Job.publishes, else_=60)
    due = (
        select(Job.id)
        .where(
            IS_QUEUED,
            Job.run_after <= db_now(),
            or_(Job.published_at.is_(None), Job.published_at <= db_now_plus(-pause)),
        )
        .order_by(Job.created_at, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(due))
    session.execute(
        update(Job)
        .where(Job.id.in_(ids))
        .values(published_at=db_now(), publishes=Job.publishes + 1),
        execution_options={"synchronize_session": False},
    )
    return ids


def _next_eligible(session: Session) -> Job | None:
    for project in session.scalars(_projects_that_wait()).all():
        chosen = _waiting(Job, project).with_for_update(skip_locked=True)
        job: Job | None = session.scalar(chosen, execution_options={"populate_existing": True})
        if job is not None:
            return job
    return None


def _projects_that_wait() -> Select[str]:
    """Fewest running jobs first, then longest waiting; hops from project to project through the index."""
    first = select(func.min(Job.project).label("project")).where(IS_QUEUED)
    projects = first.cte("found", recursive=True)
    following = select(func.min(Job.project)).where(IS_QUEUED, Job.project > projects.c.project)
    projects = projects.union_all(
        select(following.scalar_subquery()).where(projects.c.project.is_not(None))
    )
    running = select(func.count()).where(IS_RUNNING, Job.project == projects.c.project)
    oldest = _waiting(Job.created_at, projects.c.project).scalar_subquery()
    return (
        select(projects.c.project)
        .where(projects.c.project.is_not(None), oldest.is_not(None))
        .order_by(running.scalar_subquery(), oldest)
    )


def _waiting(what: Any, project: Any) -> Select[Any]:
    """Select from the job of a project that has waited longest among those that may run."""
    return (
        select(what)
        .where(
            IS_QUEUED,
            Job.project == project,
            Job.run_after <= db_now(),
            Job.cancel_requested_at.is_(None),
        )
        .order_by(Job.created_at, Job.id)
        .limit(1)
    )


def _warned(document: dict[str, Any], name: str) -> dict[str, Any]:
    warning = (
        f"The preset {name!r} was not stored: the job missed its gates, or another job has taken the name since "
        "this one was submitted. The coefficients are in the report."
    )
    return {**document, "warnings": [*document.get("warnings", ()), warning]}


def _held(session: Session, job_id: str, epoch: int) -> Job:
    job = session.scalar(
        select(Job)
        .where(Job.id == job_id, Job.epoch == epoch, Job.status == "running")
        .with_for_update(),
        execution_options={"populate_existing": True},
    )
    if job is None:
        raise _lost(job_id, epoch)
    return job


def _owner(job: Job) -> str:
    assert job.owner is not None
    return job.owner


def _lost(job_id: str, epoch: int) -> LeaseLost:
    return LeaseLost(f"attempt {epoch} of {job_id} no longer holds the job: stop its child")
