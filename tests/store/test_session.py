from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from store import jobs
from store.clock import db_now, db_now_plus
from store.errors import JobNotFound
from store.session import Database, prepare_sqlite
from store.tables import Job
from tests.store.helpers import SPEC, read, submit, together


def test_a_block_that_raises_leaves_nothing(database: Database):
    made = []

    def break_off() -> None:
        with database.write() as session:
            made.append(submit_in(session))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    with pytest.raises(JobNotFound):
        read(database, made[0])


def test_what_a_read_block_writes_is_rolled_back(database: Database):
    with database.read() as session:
        job_id = submit_in(session)
    with pytest.raises(JobNotFound):
        read(database, job_id)


def submit_in(session: Session) -> str:
    values = {"created_by": "k", "spec": SPEC, "spec_digest": "d"}
    return jobs.create(session, project="prj", **values).job.id


def test_sqlite_is_durable_and_checks_references(sqlite_database_url: str):
    database = Database(sqlite_database_url)
    with database.read() as session:
        values = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.dispose()
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 15000,
    }


@pytest.mark.parametrize(
    ("api_timeouts", "expected"), [(True, ["5s", "2s", "30s"]), (False, ["0", "0", "30s"])]
)
def test_postgres_bounds_what_a_session_may_hold(
    postgres_database_url: str, api_timeouts: bool, expected: list[str]
):
    """A worker frozen in mid transaction would otherwise hide its row from the reconciler for ever."""
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    database = Database(postgres_database_url, api_timeouts=api_timeouts)
    with database.read() as session:
        found = [session.scalar(text(f"SHOW {name}")) for name in names]
    database.dispose()
    assert found == expected


def test_writers_wait_for_each_other(database: Database):
    """Many threads, each reading before it writes: no upgrade of a lock may fail."""
    ids = [submit(database) for _ in range(2)]
    together([lambda job=job: bump(database, job) for job in ids * 4])
    assert [read(database, job).publishes for job in ids] == [40, 40]


def bump(database: Database, job_id: str) -> None:
    for _ in range(10):
        with database.write() as session:
            job = session.scalars(select(Job).where(Job.id == job_id).with_for_update()).one()
            job.publishes += 1


def test_readers_do_not_wait_for_a_writer(database: Database):
    job_id = submit(database)
    with database.write() as session:
        session.execute(text("UPDATE jobs SET name = 'x'"))
        assert read(database, job_id).name is None
    assert read(database, job_id).name == "x"


def test_ping_raises_without_a_server():
    database = Database("postgresql://127.0.0.1:1/none")
    with pytest.raises(Exception, match="refused"):
        database.ping()


def test_the_clock_is_the_databases_and_utc(database: Database):
    with database.read() as session:
        now, later = session.execute(select(db_now(), db_now_plus(90.5))).one()
    assert now.tzinfo is UTC
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=30)
    assert later - now == timedelta(seconds=90.5)


def test_times_survive_the_round_trip_exactly(database: Database):
    """A time that the database wrote must equal itself when it is sent back, or pages skip rows."""
    job = read(database, submit(database))
    elsewhere = job.created_at.astimezone(timezone(timedelta(hours=5)))
    with database.read() as session:
        assert session.scalar(select(Job.id).where(Job.created_at == elsewhere)) == job.id


def test_naive_times_are_refused(database: Database):
    with database.read() as session, pytest.raises(StatementError, match="without a zone"):
        session.scalar(select(Job.id).where(Job.created_at == datetime(2026, 1, 1)))


def test_one_database_serves_many_threads(database: Database):
    seen: set[int] = set()

    def look() -> None:
        database.ping()
        seen.add(threading.get_ident())

    together([look] * 12)
    assert len(seen) == 12


def test_a_switch_to_the_write_ahead_log_that_is_turned_away_is_tried_again(tmp_path: Path):
    """Of many processes that switch a new file at once, SQLite turned one in a hundred away without waiting."""
    turned_away = iter([True, True, False])

    class Crowded(sqlite3.Connection):
        def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
            if "journal_mode" in statement and next(turned_away):
                raise sqlite3.OperationalError("database is locked")
            return super().execute(statement, *parameters)

    engine = create_engine(f"sqlite:///{tmp_path / 'new.db'}", connect_args={"factory": Crowded})
    event.listen(engine, "connect", prepare_sqlite)
    with engine.connect() as connection:
        assert next(turned_away, None) is None
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    engine.dispose()
