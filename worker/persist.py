"""Writes to a database that may be away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from store.session import Database

T = TypeVar("T")

AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""What SQLAlchemy raises while a server is down, restarting or locked."""
PAUSE_SECONDS = 0.5

log = structlog.get_logger()


class GaveUp(Exception):
    """The database stayed away for longer than the caller could wait."""


def persist(
    database: Database, write: Callable[[Session], T], *, worth_trying: Callable[[], bool]
) -> T:
    """Run `write` in one transaction; while the database is away, again as long as it is worth trying.

    Raises:
        GaveUp: it was no longer worth trying.
    """
    while True:
        try:
            with database.write() as session:
                return write(session)
        except AWAY as error:
            log.warning("database.away", error=type(error).__name__)
            if not worth_trying():
                raise GaveUp from error
        time.sleep(PAUSE_SECONDS)
