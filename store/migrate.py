"""Bringing a database to the newest schema, and telling whether it is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text

import migrations
from store.session import Database
from store.tables import Base

_LOCK = 0x5EC47E02  # any number that every migrating process of this service shares


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up; any number of processes may try at once."""
    _make_sqlite_folder(url)
    _run(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Migrate down; `base` removes every table."""
    _run(url, lambda config: command.downgrade(config, revision))


def check(url: str) -> None:
    """Raise unless the migrated schema is the one that the tables describe."""
    _run(url, command.check)


def current(database: Database) -> str | None:
    """Return the schema's revision, or None for an empty database."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """Return the revision that this code wants."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def is_current(database: Database) -> bool:
    """Tell whether the schema is the one that this code wants."""
    return current(database) == newest()


def _run(url: str, action: Callable[[Config], None]) -> None:
    database = Database(url)
    try:
        with database.migrating() as connection:
            _lock(connection)
            action(_config(connection))
    finally:
        database.dispose()


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    folder = str(Path(migrations.__path__[0]))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["metadata"] = Base.metadata
    return config


def _make_sqlite_folder(url: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
