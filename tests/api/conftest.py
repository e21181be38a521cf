from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from api.app import create_app
from store.settings import Settings
from tests.api.jobs import Service

Declared = dict[re.Pattern[str], dict[str, set[str]]]


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


@pytest.fixture(scope="session")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """What the OpenAPI document promises: statuses by method, by what a path looks like. Made once: it takes long."""
    paths = create_app(Settings(data_dir=tmp_path_factory.mktemp("declared"))).openapi()["paths"]
    return {
        re.compile(re.sub(r"\{\w+\}", "[^/]+", path)): {
            method: set(operation["responses"]) for method, operation in item.items()
        }
        for path, item in paths.items()
    }


def must_be_declared(declared: Declared) -> Callable[[Response], None]:
    """Return what fails where an answer has a status that the OpenAPI document does not promise."""

    def check(response: Response) -> None:
        method, path = response.request.method.lower(), response.request.url.path
        for pattern, statuses in declared.items():
            if pattern.fullmatch(path) and method in statuses:
                assert str(int(response.status_code)) in statuses[method], (method, path, statuses)

    return check


def opened(service: Service, declared: Declared) -> Iterator[TestClient]:
    with TestClient(service.app()) as client:
        client.event_hooks["response"].append(must_be_declared(declared))
        client.headers["Authorization"] = f"Bearer {service.secret}"
        yield client


@pytest.fixture
def client(service: Service, declared: Declared) -> Iterator[TestClient]:
    yield from opened(service, declared)


@pytest.fixture
def client_on_both(service_on_both: Service, declared: Declared) -> Iterator[TestClient]:
    yield from opened(service_on_both, declared)
