from __future__ import annotations

from collections.abc import Iterator

import pytest

from store.session import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of this test's own, once per dialect."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def postgres_database(postgres_database_url: str) -> Iterator[Database]:
    database = Database(postgres_database_url)
    yield database
    database.dispose()
