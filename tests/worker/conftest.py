"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.rig import Rig, rig


@pytest.fixture(name="rig")
def rig_on_sqlite(sqlite_database_url: str, tmp_path: Path, runner: list[str]) -> Iterator[Rig]:
    with rig(sqlite_database_url, tmp_path, runner) as made:
        yield made


@pytest.fixture
def any_rig(database_url: str, tmp_path: Path, runner: list[str]) -> Iterator[Rig]:
    """On SQLite and on Postgres."""
    with rig(database_url, tmp_path, runner) as made:
        yield made
