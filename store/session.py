"""One database, SQLite or Postgres: short transactions that commit when their block ends."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

_WAL = "PRAGMA journal_mode = WAL"
_PRAGMAS = (
    "PRAGMA busy_timeout = 15000",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)
_PATIENCE_SECONDS = 15.0
_KEEPALIVE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# A worker frozen in mid transaction must not keep its row locked, or nobody could rescue the job.
_TIMEOUTS = "-c idle_in_transaction_session_timeout=30s"
_API_TIMEOUTS = f"{_TIMEOUTS} -c statement_timeout=5s -c lock_timeout=2s"


class Database:
    """Holds the connection pool; share one per process, across threads.

    Args:
        url: `sqlite:///path` or `postgresql://...`.
        api_timeouts: Postgres cuts statements off after 5 s, waits for locks after 2 s: what a request may cost.
    """

    def __init__(self, url: str, *, api_timeouts: bool = False) -> None:
        self._engine = _engine(url, api_timeouts=api_timeouts)
        self._writer = self._engine.execution_options(write=True)

    @property
    def engine(self) -> Engine:
        """The pool itself, for migrations and tests."""
        return self._engine

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that sees; what it would write is rolled back."""
        with Session(self._engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open one transaction; commit at the end of the block, roll back when it raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Open one transaction for the schema itself; on SQLite it keeps every other writer out."""
        with self._writer.connect() as connection, connection.begin():
            yield connection

    def ping(self) -> None:
        """Raise unless the database answers."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def dispose(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _engine(url: str, *, api_timeouts: bool) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(
        parsed,
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_size=10,
        pool_timeout=5,
        connect_args={**_KEEPALIVE, "options": _API_TIMEOUTS if api_timeouts else _TIMEOUTS},
    )


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url)
    event.listen(engine, "connect", prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def prepare_sqlite(connection: Any, _record: Any) -> None:
    """Make a connection of the driver wait for others, write ahead, and check references."""
    connection.isolation_level = None  # the driver must not begin transactions on its own
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    _write_ahead(connection)


def _write_ahead(connection: Any) -> None:
    """Switch to the write-ahead log; of processes that switch a new file at once, SQLite turns some away without waiting."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            connection.execute(_WAL)
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
