"""Time as the database tells it: no process compares its own clock with a stored time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Dialect, Float, FunctionElement, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeDecorator

_SQLITE_FORMAT = "'%Y-%m-%d %H:%M:%f000'"  # as long as the text that bound values become


class UTCDateTime(TypeDecorator[datetime]):
    """Zone-aware in and out; SQLite keeps UTC text of microsecond width, which sorts as it reads."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; hand SQLite naive UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class _Now(FunctionElement[datetime]):
    """The time at which the statement began, shifted by seconds."""

    type = UTCDateTime()
    inherit_cache = True


def db_now() -> ColumnElement[datetime]:
    """Return the database's time at the beginning of the statement."""
    return db_now_plus(0)


def db_now_plus(seconds: float | ColumnElement[Any]) -> ColumnElement[datetime]:
    """Return `db_now` shifted by a number or an expression of seconds; negative is the past."""
    return _Now(seconds if isinstance(seconds, ColumnElement) else literal(float(seconds), Float()))


@compiles(_Now, "postgresql")
def _postgres(element: _Now, compiler: SQLCompiler, **kw: Any) -> str:
    shift = compiler.process(element.clauses, **kw)
    return f"(statement_timestamp() + make_interval(secs => {shift}))"


@compiles(_Now, "sqlite")
def _sqlite(element: _Now, compiler: SQLCompiler, **kw: Any) -> str:
    shift = compiler.process(element.clauses, **kw)
    return f"strftime({_SQLITE_FORMAT}, 'now', printf('%+.3f seconds', {shift}))"
