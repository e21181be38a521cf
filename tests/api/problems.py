"""What every problem document says."""

from __future__ import annotations

from typing import Any

from httpx2 import Response

from api.problems import PROBLEM_JSON

MEMBERS = {
    "type",
    "title",
    "status",
    "detail",
    "instance",
    "code",
    "class",
    "retryable",
    "request_id",
    "errors",
    "suggestions",
}


def assert_problem(response: Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"]) == (status, code), response.text
    assert response.headers["content-type"] == PROBLEM_JSON
    assert set(problem) == MEMBERS
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["instance"] == response.request.url.path
    return problem
