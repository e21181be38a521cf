"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.proxy import Proxy
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


@pytest.fixture
def postgres_rig(postgres_database_url: str, tmp_path: Path, runner: list[str]) -> Iterator[Rig]:
    """On Postgres alone."""
    with rig(postgres_database_url, tmp_path, runner) as made:
        yield made


@pytest.fixture
def proxy(postgres_database_url: str) -> Iterator[Proxy]:
    """Stands between a worker and Postgres."""
    parts = urlsplit(postgres_database_url)
    with Proxy(parts.hostname or "127.0.0.1", parts.port or 5432) as made:
        yield made


@pytest.fixture
def proxied_rig(
    postgres_database_url: str, proxy: Proxy, tmp_path: Path, runner: list[str]
) -> Iterator[Rig]:
    """The test reads Postgres directly; its workers go through the proxy."""
    parts = urlsplit(postgres_database_url)
    user = f"{parts.username}@" if parts.username else ""
    with rig(postgres_database_url, tmp_path, runner) as made:
        made.configure(database_url=f"postgresql://{user}127.0.0.1:{proxy.port}{parts.path}")
        yield made
