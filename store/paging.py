"""Cursors: opaque, and good only for the filters they were made with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.errors import InvalidCursor
from store.tables import File, Job

Row = TypeVar("Row", Job, File)
Order = Literal["asc", "desc"]
Columns = tuple[InstrumentedAttribute[datetime], InstrumentedAttribute[str]]
"""The time of creation and the id."""
ULID_LENGTH = 26
_ID = re.compile(r"(job|file)_[0-9A-Z]{26}")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Some rows, and where the next page begins."""

    items: list[Row]
    next_cursor: str | None


@dataclass(frozen=True)
class Position:
    """The last row of a page."""

    created_at: datetime
    id: str


def read(
    session: Session,
    chosen: Select[Row],
    columns: Columns,
    filters: Mapping[str, Any],
    *,
    limit: int,
    cursor: str | None,
    order: Order,
) -> Page[Row]:
    """Return one page of the rows that were chosen, in the order of these columns.

    Raises:
        InvalidCursor: Not ours, or made with other filters.
    """
    made_for = {**filters, "order": order}
    if cursor is not None:
        chosen = chosen.where(beyond(columns, decode(cursor, made_for), order))
    rows = list(session.scalars(chosen.order_by(*_by(columns, order)).limit(limit + 1)))
    items = rows[:limit]
    if len(rows) <= limit:
        return Page(items, None)
    return Page(items, encode(Position(items[-1].created_at, items[-1].id), made_for))


def encode(position: Position, filters: Mapping[str, Any]) -> str:
    """Return the text that clients send back."""
    content = [position.created_at.isoformat(), position.id, _digest(filters)]
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def decode(cursor: str, filters: Mapping[str, Any]) -> Position:
    """Return the row after which the next page begins.

    Raises:
        InvalidCursor: Not a cursor of ours, or the filters differ from those of the first page.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        created_at, row_id, made_for = json.loads(raw)
        position = Position(datetime.fromisoformat(created_at), str(row_id))
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise InvalidCursor("not a cursor: send `next_cursor` of the page before") from error
    if position.created_at.tzinfo is None or not _ID.fullmatch(position.id):
        raise InvalidCursor("not a cursor: send `next_cursor` of the page before")
    if made_for != _digest(filters):
        raise InvalidCursor("the filters changed between pages: start again without a cursor")
    return position


def beyond(columns: Columns, position: Position, order: Order) -> ColumnElement[bool]:
    """Return the condition of the rows that come after a position."""
    row = tuple_(*columns)
    there = tuple_(position.created_at, position.id)
    return row > there if order == "asc" else row < there


def _by(columns: Columns, order: Order) -> list[ColumnElement[Any]]:
    """Return what rows are ordered by."""
    return [column.asc() if order == "asc" else column.desc() for column in columns]


def begins(column: InstrumentedAttribute[str], prefix: str) -> ColumnElement[bool]:
    """Return the condition of ids that begin so: a range, which an index serves whatever its collation."""
    kind, _, begin = prefix.rpartition("_")
    first, last = (f"{kind}_{begin.ljust(ULID_LENGTH, end)}" for end in "0Z")
    return column.between(first, last)


def _digest(filters: Mapping[str, Any]) -> str:
    text = json.dumps(filters, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
