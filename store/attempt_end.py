"""How attempts end: a cancel that was asked for first wins; crashes are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from sqlalchemy.orm import Session

from store.clock import db_now, db_now_plus
from store.states import EventType, Status, transition
from store.tables import Job

Ending = Literal["succeeded", "failed", "cancelled"]
RELEASED: Final[Mapping[str, Any]] = {
    "owner": None,
    "lease_until": None,
    "queued_at": db_now(),
    "run_after": db_now(),
    "published_at": None,
    "publishes": 0,
}
_TYPES: Final[Mapping[Ending, EventType]] = {
    "succeeded": "job.succeeded",
    "failed": "job.failed",
    "cancelled": "job.cancelled",
}


def end(
    session: Session,
    job: Job,
    to: Ending,
    *,
    actor: str,
    detail: Mapping[str, Any],
    **values: Any,
) -> Ending:
    """End a running job; whatever the attempt made of it, one that the client cancelled ends as cancelled."""
    if job.cancel_requested_at is not None and to != "cancelled":
        return end(session, job, "cancelled", actor=actor, detail={})
    over = {"owner": None, "lease_until": None, "finished_at": db_now(), **values}
    transition(session, job, to, actor=actor, type=_TYPES[to], detail=detail, **over)
    return to


def requeue_or_give_up(
    session: Session,
    job: Job,
    *,
    actor: str,
    error: dict[str, Any],
    max_crashes: int,
    backoff: float,
) -> Status:
    """Count a crash: queued again in its old place, or cancelled, or failed as POISON."""
    crashes = job.crash_count + 1
    detail = {"reason": error["code"], "crash_count": crashes, "error": error}
    if job.cancel_requested_at is not None:
        return end(session, job, "cancelled", actor=actor, detail={}, crash_count=crashes)
    if crashes >= max_crashes:
        poison = _poison(crashes, error)
        return end(
            session,
            job,
            "failed",
            actor=actor,
            detail={**detail, "error": poison},
            error=poison,
            crash_count=crashes,
        )
    values = {
        **RELEASED,
        "crash_count": crashes,
        "run_after": db_now_plus(backoff),
        "status_reason": error["detail"],
    }
    transition(session, job, "queued", actor=actor, type="job.requeued", detail=detail, **values)
    return "queued"


def _poison(crashes: int, last: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "code": "POISON",
        "class": "system",
        "retryable": False,
        "detail": f"the job was given up after {crashes} crashes; the last: {last['detail']}",
        "suggestions": ["try a smaller model or fewer samples", "ask the operator for the log"],
        "cause": last["code"],
    }
