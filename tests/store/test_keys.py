from __future__ import annotations

import pytest
from sqlalchemy import text, update

from store import keys
from store.clock import db_now_plus
from store.errors import KeyInvalid, KeyNotFound
from store.session import Database
from store.tables import ApiKey


def make(database: Database) -> tuple[ApiKey, str]:
    with database.write() as session:
        return keys.create(session, project="prj", name="ci", scopes=["jobs:read"])


def authenticate(database: Database, secret: str) -> ApiKey:
    with database.read() as session:
        key, _ = keys.authenticate(session, secret)
        return key


def change(database: Database, **values) -> None:
    with database.write() as session:
        session.execute(update(ApiKey).values(**values))


def test_the_secret_opens_and_is_stored_nowhere(database: Database):
    key, secret = make(database)
    assert secret.startswith("pk_live_")
    assert len(secret) == len("pk_live_") + 43
    found = authenticate(database, secret)
    assert (found.id, found.project, found.scopes) == (key.id, "prj", ["jobs:read"])
    with database.read() as session:
        row = session.execute(text("SELECT * FROM api_keys")).one()
    assert secret not in str(row)
    assert secret.startswith(row.prefix)


@pytest.mark.parametrize("secret", ["", "pk_live_", "pk_live_ü", "x" * 10_000])
def test_unknown_secrets_are_refused(database: Database, secret: str):
    make(database)
    with pytest.raises(KeyInvalid):
        authenticate(database, secret)


def test_an_expired_key_is_refused(database: Database):
    _, secret = make(database)
    change(database, expires_at=db_now_plus(60))
    authenticate(database, secret)
    change(database, expires_at=db_now_plus(-1))
    with pytest.raises(KeyInvalid):
        authenticate(database, secret)


def test_a_revoked_key_is_refused_at_once(database: Database):
    key, secret = make(database)
    for _ in range(2):
        with database.write() as session:
            keys.revoke(session, key.id)
    with pytest.raises(KeyInvalid):
        authenticate(database, secret)


def test_revoking_an_unknown_key_is_an_error(database: Database):
    with pytest.raises(KeyNotFound), database.write() as session:
        keys.revoke(session, "key_none")


def test_use_is_noted_once_a_minute(database: Database):
    _, secret = make(database)

    def stale() -> bool:
        with database.read() as session:
            return keys.authenticate(session, secret)[1]

    assert stale()
    with database.write() as session:
        keys.note_use(session, authenticate(database, secret).id)
    assert not stale()
    change(database, last_used_at=db_now_plus(-61))
    assert stale()
