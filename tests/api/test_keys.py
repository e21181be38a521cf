"""Keys, scopes and projects, over every route that there is."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from ulid import ULID

from store import keys
from store.tables import ApiKey
from tests.api.jobs import BODY, Service

KEYED = [
    ("POST", "/v1/jobs", "jobs:write"),
    ("GET", "/v1/jobs", "jobs:read"),
    ("GET", "/v1/jobs/{job_id}", "jobs:read"),
    ("POST", "/v1/jobs/{job_id}/cancel", "jobs:write"),
    ("GET", "/v1/jobs/{job_id}/events", "jobs:read"),
    ("GET", "/v1/jobs/{job_id}/report", "jobs:read"),
    ("GET", "/v1/jobs/{job_id}/report.html", "jobs:read"),
    ("GET", "/v1/jobs/{job_id}/manifest", "jobs:read"),
    ("GET", "/v1/jobs/{job_id}/artifacts/{path}", "artifacts:read"),
    ("POST", "/v1/files", "jobs:write"),
    ("GET", "/v1/files", "jobs:read"),
    ("GET", "/v1/files/{file_id}", "jobs:read"),
    ("GET", "/v1/files/{file_id}/content", "artifacts:read"),
    ("DELETE", "/v1/files/{file_id}", "jobs:write"),
    ("GET", "/v1/methods", None),
    ("GET", "/v1/methods/{name}", None),
    ("GET", "/v1/models/inspect", None),
    ("GET", "/v1/tasks", None),
    ("GET", "/v1/presets", "jobs:read"),
]


def filled(path: str, job_id: str) -> str:
    file_id = f"file_{ULID()}"
    return path.format(job_id=job_id, file_id=file_id, path="config.json", name="wanda")


@pytest.fixture
def job_id(client: TestClient, service: Service) -> str:
    made = client.post("/v1/jobs", json=BODY).json()["id"]
    service.succeed(service.claim())
    return str(made)


def test_the_list_above_is_every_route(client: TestClient) -> None:
    """A new route without a line here would go untested."""
    paths = client.get("/openapi.json").json()["paths"]
    found = {(verb.upper(), path) for path, item in paths.items() for verb in item}
    open_to_all = {("GET", "/livez"), ("GET", "/readyz")}
    assert found - open_to_all == {(method, path) for method, path, _ in KEYED}


@pytest.mark.parametrize(
    "authorization", [None, "Bearer x", "Bearer ", "Basic YTpi", "pk_live_x", "Bearer \xff"]
)
def test_without_a_key_nothing_is_told(
    client: TestClient, job_id: str, authorization: str | None
) -> None:
    del client.headers["Authorization"]
    headers = {b"Authorization": authorization.encode("latin-1")} if authorization else {}
    for method, path, _ in KEYED:
        body = BODY if (method, path) == ("POST", "/v1/jobs") else None
        response = client.request(method, filled(path, job_id), headers=headers, json=body)
        assert (response.status_code, response.json()["code"]) == (401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"] == "Bearer"


def test_submit_without_a_key(client: TestClient) -> None:
    response = client.post("/v1/jobs", json={}, headers={"Authorization": "Bearer x"})
    assert response.status_code == 401


@pytest.mark.parametrize("scope", keys.SCOPES)
def test_each_route_needs_its_scope(
    client: TestClient, service: Service, job_id: str, scope: str
) -> None:
    others = tuple(known for known in keys.SCOPES if known != scope)
    headers = {"Authorization": f"Bearer {service.key(scopes=others)}"}
    for method, path, _ in [row for row in KEYED if row[2] == scope]:
        body = BODY if (method, path) == ("POST", "/v1/jobs") else None
        response = client.request(method, filled(path, job_id), headers=headers, json=body)
        assert (response.status_code, response.json()["code"]) == (403, "SCOPE_MISSING")


def test_another_project_finds_nothing(client: TestClient, service: Service, job_id: str) -> None:
    headers = {"Authorization": f"Bearer {service.key(project='prj_b')}"}
    for method, path, _ in [row for row in KEYED if "{job_id}" in row[1]]:
        response = client.request(method, filled(path, job_id), headers=headers)
        assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")


def test_another_project_lists_nothing(client: TestClient, service: Service, job_id: str) -> None:
    headers = {"Authorization": f"Bearer {service.key(project='prj_b')}"}
    assert client.get("/v1/jobs", headers=headers).json()["data"] == []


def test_revoked_key_is_dead(client: TestClient, service: Service) -> None:
    assert client.get("/v1/jobs").status_code == 200
    with service.database.write() as session:
        row = session.query(ApiKey).one()
        keys.revoke(session, row.id)
    assert client.get("/v1/jobs").status_code == 401


def test_no_log_line_holds_a_key(
    client: TestClient, service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    client.get("/v1/jobs")
    client.get("/v1/jobs", headers={"Authorization": "Bearer pk_live_wrong"})
    out, err = capsys.readouterr()
    assert "request.finished" in out
    assert service.secret not in out + err
    assert "pk_live" not in out + err
