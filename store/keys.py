"""API keys: shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

from sqlalchemy import insert, or_, select, update
from sqlalchemy.orm import Session

from store.clock import db_now, db_now_plus
from store.errors import KeyInvalid, KeyNotFound
from store.tables import ApiKey, new_id

SCOPES: Final = ("jobs:read", "jobs:write", "artifacts:read")
_SHOWN = len("pk_live_") + 4
_TOUCH_SECONDS = 60


def create(
    session: Session, *, project: str, name: str, scopes: Sequence[str] = SCOPES
) -> tuple[ApiKey, str]:
    """Make a key; return its row and the secret, which nothing can show again."""
    secret = "pk_live_" + secrets.token_urlsafe(32)
    row = insert(ApiKey).values(
        id=new_id("key"),
        project=project,
        name=name,
        prefix=secret[:_SHOWN],
        sha256=_digest(secret),
        scopes=list(scopes),
        created_at=db_now(),
    )
    return session.scalars(row.returning(ApiKey)).one(), secret


def authenticate(session: Session, secret: str) -> tuple[ApiKey, bool]:
    """Return the live key behind a secret, and whether its use should be noted again (once a minute).

    Raises:
        KeyInvalid: Unknown, revoked or expired: which of them is not said.
    """
    live = (
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_now()),
    )
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < db_now_plus(-_TOUCH_SECONDS))
    query = select(ApiKey, stale).where(ApiKey.sha256 == _digest(secret), *live)
    row = session.execute(query).one_or_none()
    if row is None:
        raise KeyInvalid(
            "this API key is unknown, revoked or expired: ask the operator for another"
        )
    return row[0], bool(row[1])


def note_use(session: Session, key_id: str) -> None:
    """Note that a key was used just now."""
    session.execute(
        update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=db_now()),
        execution_options={"synchronize_session": False},
    )


def revoke(session: Session, key_id: str) -> None:
    """End a key now; ending it twice changes nothing."""
    if session.get(ApiKey, key_id) is None:
        raise KeyNotFound(f"no API key {key_id}: give its id (key_...), not the secret")
    session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=db_now()),
        execution_options={"synchronize_session": False},
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
