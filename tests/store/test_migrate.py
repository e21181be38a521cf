from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect

from store import jobs, migrate
from store.session import Database
from tests.servers import postgres_database
from tests.store.helpers import claim, submit, together

TABLES = {
    "jobs",
    "job_labels",
    "job_events",
    "artifacts",
    "files",
    "presets",
    "idempotency",
    "api_keys",
}


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/a folder 100%/new.db"
        return
    server = request.getfixturevalue("postgres_url")
    with postgres_database(server, f"secateur_test_{secrets.token_hex(6)}") as url:
        yield url


def tables(url: str) -> set[str]:
    database = Database(url)
    try:
        return set(inspect(database.engine).get_table_names()) - {"alembic_version"}
    finally:
        database.dispose()


def test_up_down_and_up_again(empty_url: str):
    migrate.upgrade(empty_url)
    assert tables(empty_url) == TABLES
    migrate.check(empty_url)
    migrate.downgrade(empty_url, "base")
    assert tables(empty_url) == set()
    migrate.upgrade(empty_url)
    migrate.upgrade(empty_url)
    database = Database(empty_url)
    submit(database)
    claim(database)
    database.dispose()


def test_jobs_from_before_are_found_by_what_they_are(empty_url: str):
    migrate.upgrade(empty_url)
    database = Database(empty_url)
    job_id = submit(database, labels={"team \"a'": "x", "n": "1"})
    submit(database)
    migrate.downgrade(empty_url, "0005")
    migrate.upgrade(empty_url)
    with database.read() as session:
        labelled = jobs.page(session, project="prj", labels={"team \"a'": "x", "n": "1"}).items
        alike = jobs.page(session, project="prj", method="wanda", model="hf://a/b").items
        assert jobs.page(session, project="prj", method="flap").items == []
    assert ([job.id for job in labelled], len(alike)) == ([job_id], 2)
    database.dispose()


def test_a_database_with_jobs_is_brought_up_to_date(empty_url: str):
    migrate.upgrade(empty_url)
    database = Database(empty_url)
    job_id = submit(database)
    migrate.downgrade(empty_url, "0001")
    migrate.upgrade(empty_url)
    assert claim(database).job_id == job_id
    assert migrate.is_current(database)
    database.dispose()


def test_many_processes_may_migrate_at_once(empty_url: str):
    Database(empty_url).dispose()
    together([lambda: migrate.upgrade(empty_url)] * 4)
    migrate.check(empty_url)


def test_an_unmigrated_database_is_recognised(empty_url: str):
    migrate.upgrade(empty_url)
    database = Database(empty_url)
    assert migrate.is_current(database)
    migrate.downgrade(empty_url, "base")
    assert migrate.current(database) is None
    assert not migrate.is_current(database)
    database.dispose()


def test_a_failed_migration_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch):
    """Half a schema could be neither upgraded nor used."""
    migrate.upgrade(empty_url)
    migrate.downgrade(empty_url, "base")
    with pytest.raises(ZeroDivisionError):
        migrate._run(empty_url, lambda config: break_off(config))
    assert tables(empty_url) == set()


def break_off(config) -> None:
    from alembic import command

    command.upgrade(config, "head")
    1 / 0  # noqa: B018
