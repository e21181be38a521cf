"""A job's history, in the order in which it happened."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.tables import Event


def after(session: Session, job_id: str, *, after_seq: int = 0, limit: int = 100) -> list[Event]:
    """Return up to `limit` events that follow `after_seq`.

    The order of `seq` is the order of commits within a job: each event is written under its row's lock.
    """
    chosen = select(Event).where(Event.job_id == job_id, Event.seq > after_seq)
    return list(session.scalars(chosen.order_by(Event.seq).limit(limit)))
