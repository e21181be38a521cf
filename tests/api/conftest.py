from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api.jobs import Service


@pytest.fixture
def service(sqlite_database_url: str, tmp_path: Path) -> Iterator[Service]:
    made = Service.over(sqlite_database_url, tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture
def service_on_both(database_url: str, tmp_path: Path) -> Iterator[Service]:
    made = Service.over(database_url, tmp_path)
    yield made
    made.database.dispose()


def opened(service: Service) -> Iterator[TestClient]:
    with TestClient(service.app()) as client:
        client.headers["Authorization"] = f"Bearer {service.secret}"
        yield client


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    yield from opened(service)


@pytest.fixture
def client_on_both(service_on_both: Service) -> Iterator[TestClient]:
    yield from opened(service_on_both)
