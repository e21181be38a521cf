"""Idempotency keys: the record is written in the transaction that makes the job, or neither is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store.clock import db_now, db_now_plus
from store.errors import IdempotencyConflict
from store.tables import IdempotencyRecord

KEEP_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Idempotency:
    """The client's key and a digest of everything it asked for."""

    key: str
    fingerprint: str


def reserve(session: Session, idempotency: Idempotency, *, project: str, job_id: str) -> str | None:
    """Bind the key to `job_id`, or return the job that it is bound to; a key is free again after 24 h.

    A second transaction with the same key waits here until the first has ended.

    Raises:
        IdempotencyConflict: The key is bound to another request.
    """
    if session.scalar(_upsert(session, idempotency, project=project, job_id=job_id)) is not None:
        return None
    record = session.scalars(
        select(IdempotencyRecord).where(
            IdempotencyRecord.project == project, IdempotencyRecord.key == idempotency.key
        )
    ).one()
    if record.fingerprint != idempotency.fingerprint:
        raise IdempotencyConflict(
            "this Idempotency-Key was used for another request: make a new key for a new job"
        )
    return record.job_id


def _upsert(session: Session, idempotency: Idempotency, *, project: str, job_id: str) -> Any:
    values = {
        "fingerprint": idempotency.fingerprint,
        "job_id": job_id,
        "expires_at": db_now_plus(KEEP_SECONDS),
    }
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    row = insert(IdempotencyRecord).values(project=project, key=idempotency.key, **values)
    return row.on_conflict_do_update(
        index_elements=["project", "key"],
        set_=values,
        where=IdempotencyRecord.expires_at <= db_now(),
    ).returning(IdempotencyRecord.job_id)
