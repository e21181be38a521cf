from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

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


def must_be_declared(app: FastAPI) -> Callable[[Response], None]:
    """Return what fails where an answer has a status that the OpenAPI document does not promise."""
    paths = app.openapi()["paths"]
    known = {re.compile(re.sub(r"\{\w+\}", "[^/]+", path)): item for path, item in paths.items()}

    def check(response: Response) -> None:
        method, path = response.request.method.lower(), response.request.url.path
        for pattern, item in known.items():
            if pattern.fullmatch(path) and method in item:
                declared = item[method]["responses"]
                assert str(int(response.status_code)) in declared, (method, path, declared.keys())

    return check


def opened(service: Service) -> Iterator[TestClient]:
    app = service.app()
    with TestClient(app) as client:
        client.event_hooks["response"].append(must_be_declared(app))
        client.headers["Authorization"] = f"Bearer {service.secret}"
        yield client


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    yield from opened(service)


@pytest.fixture
def client_on_both(service_on_both: Service) -> Iterator[TestClient]:
    yield from opened(service_on_both)
