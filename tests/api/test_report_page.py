"""The report as JSON and as a page."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from api.negotiation import prefers_html
from pruning_core.spec.report import Report
from tests.api.jobs import BODY, FILES, REPORT, Service
from tests.api.problems import assert_problem

PAGE = "<!DOCTYPE html><title>ä report</title>"
A_BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.fixture
def url(client: TestClient, service: Service) -> str:
    job_id = client.post("/v1/jobs", json=BODY).json()["id"]
    service.succeed(service.claim(), page=PAGE)
    return f"/v1/jobs/{job_id}"


def test_page_may_do_nothing(client: TestClient, url: str) -> None:
    response = client.get(f"{url}/report.html")
    assert response.text == PAGE
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = set(response.headers["content-security-policy"].split("; "))
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"} <= policy
    assert {"frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'", "sandbox"} <= policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in response.headers


def test_json_is_the_default_and_browsers_get_the_page(client: TestClient, url: str) -> None:
    for accept in ("*/*", "application/json", "text/html;q=0.5, application/json"):
        response = client.get(f"{url}/report", headers={"Accept": accept})
        assert response.json() == REPORT
        assert response.headers["vary"] == "Accept"
    response = client.get(f"{url}/report", headers={"Accept": A_BROWSER})
    assert response.text == PAGE
    assert response.headers["vary"] == "Accept"
    assert response.headers["content-security-policy"].endswith("sandbox")


def test_page_is_no_file_of_the_checkpoint(client: TestClient, url: str) -> None:
    manifest = client.get(f"{url}/manifest").json()
    assert {file["path"] for file in manifest["files"]} == set(FILES)
    assert_problem(client.get(f"{url}/artifacts/report.html"), 404, "NOT_FOUND")


def test_job_without_a_page_has_its_json(client: TestClient, service: Service) -> None:
    job_id = client.post("/v1/jobs", json=BODY).json()["id"]
    url = f"/v1/jobs/{job_id}"
    assert_problem(client.get(f"{url}/report.html"), 409, "STATE_CONFLICT")
    service.succeed(service.claim())
    assert_problem(client.get(f"{url}/report.html"), 404, "NOT_FOUND")
    assert client.get(f"{url}/report", headers={"Accept": A_BROWSER}).json() == REPORT


def test_page_belongs_to_its_project(service: Service, client: TestClient, url: str) -> None:
    other = {"Authorization": f"Bearer {service.key(project='prj_b')}"}
    assert_problem(client.get(f"{url}/report.html", headers=other), 404, "NOT_FOUND")
    narrow = {"Authorization": f"Bearer {service.key(scopes=('jobs:write',))}"}
    assert_problem(client.get(f"{url}/report.html", headers=narrow), 403, "SCOPE_MISSING")


def test_openapi_has_both_forms(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    answers = document["paths"]["/v1/jobs/{job_id}/report"]["get"]["responses"]["200"]["content"]
    assert answers["application/json"]["schema"] == {"$ref": "#/components/schemas/Report"}
    assert "text/html" in answers
    described = document["components"]["schemas"]["Report"]
    assert set(described["properties"]) == set(Report.model_fields)
    page = document["paths"]["/v1/jobs/{job_id}/report.html"]["get"]["responses"]["200"]
    assert page["content"].keys() == {"text/html"}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("text/html", True),
        ("TEXT/HTML ; Q=0.1", True),
        ("text/*", True),
        ("text/html;q=0", False),
        ("text/html;q=0.9, application/json;q=0.8", True),
        ("application/json, text/html", False),
        ("*/*, text/html;q=0.5", False),
        (A_BROWSER, True),
        ("text/html;q=nonsense", False),
        (";;,,;q=", False),
    ],
)
def test_preference(accept: str | None, expected: bool) -> None:
    assert prefers_html(accept) is expected
