"""Everything that goes wrong is a problem, and nothing that a client sends is a crash."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.session import Database
from tests.api.jobs import BODY, Service
from tests.api.problems import assert_problem
from tests.examples import examples

JSON = {"Content-Type": "application/json"}


def test_unknown_path(client: TestClient) -> None:
    assert_problem(client.get("/v1/nothing"), 404, "NOT_FOUND")
    assert_problem(client.get("/v1/jobs/"), 404, "NOT_FOUND")


def test_wrong_method(client: TestClient) -> None:
    response = client.delete("/v1/jobs")
    assert_problem(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/files", "GET, POST"),
        ("/v1/files/file_01JDA2M9Q4XW5S8ZK6B7C3D1EF", "DELETE, GET"),
        ("/v1/files/file_01JDA2M9Q4XW5S8ZK6B7C3D1EF/content", "GET, HEAD"),
        ("/v1/jobs/job_01JDA2M9Q4XW5S8ZK6B7C3D1EF/artifacts/a/b", "GET, HEAD"),
        ("/v1/jobs/job_01JDA2M9Q4XW5S8ZK6B7C3D1EF/cancel", "POST"),
        ("/livez", "GET"),
    ],
)
def test_allow_names_every_method_of_the_path(client: TestClient, path: str, allowed: str) -> None:
    for method in ("PUT", "PATCH", "OPTIONS"):
        response = client.request(method, path)
        assert_problem(response, 405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "job_id",
    ["job_x", "job_01JDA2M9Q4XW5S8ZK6B7C3D1EF", "%00", "job_%0001JDA2M9Q4XW5S8ZK6B7C3D1E", "💣"],
)
def test_unknown_job(client: TestClient, job_id: str) -> None:
    for rest in ("", "/events", "/report", "/manifest", "/artifacts/x"):
        response = client.get(f"/v1/jobs/{job_id}{rest}")
        assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")


def test_unknown_field_is_named_and_its_neighbour_suggested(client: TestClient) -> None:
    body = {"model": "hf://a/b", "prune": {"method": "wanda", "sparcity": 0.5}}
    problem = assert_problem(client.post("/v1/jobs", json=body), 422, "VALIDATION_FAILED")
    assert problem["errors"] == [{"pointer": "/prune/sparcity", "detail": "unknown field"}]
    assert problem["suggestions"] == ["did you mean `prune.sparsity`?"]


def test_field_in_the_wrong_place_is_sent_to_the_right_one(client: TestClient) -> None:
    body = {**BODY, "sparsity": 0.5, "seed": 3}
    problem = assert_problem(client.post("/v1/jobs", json=body), 422, "VALIDATION_FAILED")
    assert "did you mean `prune.sparsity`?" in problem["suggestions"]
    assert any("`prune.calibration.seed`" in hint for hint in problem["suggestions"])


def test_unknown_method_lists_those_there_are(client: TestClient) -> None:
    body = {"model": "hf://a/b", "prune": {"method": "wandaa", "sparsity": 0.5}}
    problem = assert_problem(client.post("/v1/jobs", json=body), 422, "VALIDATION_FAILED")
    assert problem["errors"][0]["pointer"] == "/prune/method"
    assert "wanda" in problem["errors"][0]["allowed"]
    assert problem["suggestions"] == ["did you mean `wanda`?"]


@pytest.mark.parametrize(
    ("prune", "pointer"),
    [
        ({"method": "wanda", "sparsity": 0}, "/prune/sparsity"),
        ({"method": "wanda", "sparsity": 1}, "/prune/sparsity"),
        ({"method": "wanda", "sparsity": 10**400}, "/prune/sparsity"),
        ({"method": "wanda"}, "/prune"),
        ({"method": "wanda", "pattern": {"name": "n:m", "n": 4, "m": 4}}, "/prune/pattern"),
        ({"method": "wanda", "pattern": {"name": "n:m", "n": 4}}, "/prune/pattern/m"),
        ({"method": {"name": "wanda", "x": 1}, "sparsity": 0.5}, "/prune/method/x"),
        ({"method": "wanda", "sparsity": 0.5, "calibration": ["A B"]}, "/prune/calibration/0"),
        (
            {"method": "wanda", "sparsity": 0.5, "calibration": {"seed": -1}},
            "/prune/calibration/seed",
        ),
        ({"sparsity": 0.5}, "/prune/method"),
        (None, "/prune"),
    ],
)
def test_pointer_leads_to_the_fault(client: TestClient, prune: Any, pointer: str) -> None:
    response = client.post("/v1/jobs", json={"model": "hf://a/b", "prune": prune})
    problem = assert_problem(response, 422, "VALIDATION_FAILED")
    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "labels", [{"a b": "x"}, {"": "x"}, {"a": "\0"}, {"a": 1}, {"a": "x" * 257}, ["a"]]
)
def test_labels_are_bounded(client: TestClient, labels: Any) -> None:
    response = client.post("/v1/jobs", json={**BODY, "labels": labels})
    assert_problem(response, 422, "VALIDATION_FAILED")


def test_fields_of_the_service_cannot_be_set(client: TestClient) -> None:
    for field in ("status", "project", "epoch", "id", "created_by"):
        response = client.post("/v1/jobs", json={**BODY, field: "x"})
        problem = assert_problem(response, 422, "VALIDATION_FAILED")
        assert problem["errors"][0]["pointer"] == f"/{field}"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\xff\xfe{}",
        b'{"model": "\xc3\x28"}',
        b'{"model": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"prune": {"sparsity": NaN}}',
        b'{"prune": {"sparsity": -Infinity}}',
        b'{"model": "hf://a/b", "model": "hf://a/c"}',
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"9" * 5000,
        b'{"name": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf{}",
        b"null",
        b'"text"',
        b"[]",
        json.dumps({**BODY, "name": "a\0b"}).encode(),
        json.dumps({**BODY, "a\0b": 1}).encode(),
        json.dumps({**BODY, "x" * 100_000: 1}).encode(),
        json.dumps({**BODY, "prune": {"method": "w" * 100_000, "sparsity": 0.5}}).encode(),
        json.dumps({**BODY, "model": "file:///" + "a/" * 100_000}).encode(),
        json.dumps({**BODY, **{f"k{i}": i for i in range(20_000)}}).encode(),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_hostile_bodies_are_refused(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/jobs", content=body, headers=JSON)
    assert response.status_code in (400, 422)
    problem = assert_problem(response, response.status_code, response.json()["code"])
    assert problem["code"] in ("MALFORMED_JSON", "VALIDATION_FAILED")
    assert len(response.content) < 20_000


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_refused(client: TestClient, content_type: str) -> None:
    response = client.post(
        "/v1/jobs", content=json.dumps(BODY), headers={"Content-Type": content_type}
    )
    assert_problem(response, 415, "CONTENT_TYPE_UNSUPPORTED")


def test_charset_of_the_content_type_is_fine(client: TestClient) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert client.post("/v1/jobs", content=json.dumps(BODY), headers=headers).status_code == 202


def test_large_bodies_are_refused_with_and_without_a_declared_length(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    for content in (b" " * 2_000_000, chunks()):
        response = client.post("/v1/jobs", content=content, headers=JSON)
        assert_problem(response, 413, "BODY_TOO_LARGE")


HOSTILE_QUERIES = [
    "status=paused",
    "status=%00",
    "method=%00",
    "model=%00",
    "label=nocolon",
    "label=a:%00",
    "label=:x",
    "created_after=yesterday",
    "created_after=2026-01-01T00:00:00",
    "created_after=0001-01-01T00:00:00%2B23:59",
    "created_after=9999-12-31T23:59:59-23:59",
    "created_after=1e400",
    "created_after=99999999999999999",
    "cursor=x",
    "cursor=%00",
    "cursor=ä",
    f"cursor={'W1tb' * 128}",
    f"limit={'9' * 5000}",
    "order=up",
    "staus=running",
]


def test_hostile_queries_are_refused(client_on_both: TestClient) -> None:
    for query in HOSTILE_QUERIES:
        response = client_on_both.get(f"/v1/jobs?{query}")
        assert response.status_code == 422, query
        assert_problem(response, 422, response.json()["code"])


def test_typo_in_a_query_is_explained(client: TestClient) -> None:
    problem = assert_problem(client.get("/v1/jobs?staus=x"), 422, "VALIDATION_FAILED")
    assert problem["errors"] == [{"parameter": "staus", "detail": "unknown field"}]
    assert problem["suggestions"] == ["did you mean `status`?"]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "n", "m", "tasks", "seed", "samples", "windows"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
PRUNES = st.fixed_dictionaries(
    {"method": st.sampled_from(["wanda", "magnitude"]) | TREES},
    optional=dict.fromkeys(("sparsity", "pattern", "calibration", "evaluation", "output"), TREES),
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("hf://a/b") | TREES, "prune": PRUNES},
    optional={"name": TREES, "labels": TREES},
)


@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=BODIES)
def test_any_body_is_accepted_or_explained(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/v1/jobs", content=json.dumps(body).encode(), headers=JSON)
    assert response.status_code in (202, 400, 422), response.text
    if response.status_code != 202:
        assert_problem(response, response.status_code, response.json()["code"])


def test_request_id_is_echoed_or_made(client: TestClient) -> None:
    assert (
        client.get("/livez", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    )
    for bad in ("a b", "x" * 200, '"'):
        made = client.get("/livez", headers={"X-Request-Id": bad}).headers["x-request-id"]
        assert made.startswith("req_")


def test_database_that_is_away_answers_503(service: Service, tmp_path: Path) -> None:
    gone = Database(f"sqlite:///{tmp_path}/no/such/folder/x.db")
    app = service.app()
    app.state.parts = app.state.parts.__class__(**{**vars(app.state.parts), "database": gone})
    with TestClient(app) as client:
        headers = {"Authorization": f"Bearer {service.secret}"}
        for path in ("/v1/jobs", "/readyz"):
            response = client.get(path, headers=headers)
            problem = assert_problem(response, 503, "SERVICE_UNAVAILABLE")
            assert response.headers["retry-after"].isdecimal()
            assert problem["retryable"] is True
        assert client.get("/livez").json() == {"status": "ok"}


def test_locked_database_answers_503(service: Service, client: TestClient) -> None:
    parts = client.app.state.parts  # type: ignore[attr-defined]
    with parts.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 100")
    path = parts.database.engine.url.database
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert_problem(client.get("/v1/jobs"), 503, "SERVICE_UNAVAILABLE")
    finally:
        holder.close()


def test_crash_is_a_problem_that_tells_nothing(service: Service) -> None:
    app = service.app()

    @app.get("/crash")
    def crash() -> None:
        raise RuntimeError("a secret detail")

    with TestClient(app) as client:
        response = client.get("/crash")
    problem = assert_problem(response, 500, "INTERNAL")
    assert "secret" not in response.text
    assert problem["class"] == "system"


MANY = 90_000


@pytest.mark.parametrize(
    "body",
    [
        {**BODY, **{f"k{i}": 1 for i in range(MANY)}},
        {**BODY, "labels": {f"k{i}": 1 for i in range(MANY)}},
        {**BODY, "prune": {**BODY["prune"], "calibration": [{}] * MANY}},
        {**BODY, "prune": {**BODY["prune"], "gates": [{"x": 1}] * MANY}},
        {**BODY, "prune": {**BODY["prune"], "refinement": [[]] * MANY}},
        {**BODY, "model": [{"a": {}}] * (MANY // 4)},
        [{}] * MANY,
    ],
    ids=["fields", "labels", "tasks", "gates", "refinements", "model", "list"],
)
def test_a_large_body_costs_no_more_than_reading_it(client: TestClient, body: Any) -> None:
    content = json.dumps(body, separators=(",", ":")).encode()
    assert len(content) < 1_000_000
    began = time.process_time()
    response = client.post("/v1/jobs", content=content, headers=JSON)
    assert time.process_time() - began < 0.5  # 7 to 13 s where each item is checked and explained
    assert_problem(response, 422, "VALIDATION_FAILED")
    assert len(response.content) < 20_000


def test_many_faults_are_counted_and_some_explained(client: TestClient) -> None:
    body = {**BODY, **{f"sparsity{i}": 1 for i in range(90)}}
    problem = assert_problem(client.post("/v1/jobs", json=body), 422, "VALIDATION_FAILED")
    assert len(problem["errors"]) == 20
    assert problem["detail"].endswith("(89 more)")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "hf://org/name\n"},
        {"model": "hf://org/name@main\n"},
        {"model": {"ref": "hf://org/name", "revision": "a/../../b"}},
        {"model": "file:///models/%0a"},
        {"model": "file:///models/\u202ebarger"},
        {"model": "hf://örg/name"},
        {"name": "abc\u202edef"},
        {"name": "zero\u200bwidth"},
        {"name": "\u2028"},
        {"name": "\U000e0041"},
        {"name": "\x1b[31m"},
        {"labels": {"a": "b\u2066c"}},
        {"labels": {"a": "\x9b"}},
        {"prune": {**BODY["prune"], "sparsity": "0.5"}},
        {"prune": {**BODY["prune"], "sparsity": True}},
        {"prune": {**BODY["prune"], "true_sequential": "yes"}},
        {"prune": {**BODY["prune"], "true_sequential": 1}},
        {"prune": {**BODY["prune"], "calibration": {"samples": "8"}}},
        {"prune": {**BODY["prune"], "calibration": {"seed": True}}},
        {"prune": {**BODY["prune"], "calibration": ["python_docs\n"]}},
        {"prune": {**BODY["prune"], "evaluation": {"tasks": ["python_docs\n"]}}},
        {"prune": {"method": "flap", "budget": {"parameters": 10**399}}},
        {"prune": {"method": "flap", "budget": {"bytes": 10**17}}},
        {"prune": {"method": "goa", "sparsity": 0.2, "evaluation": {"windows": 10**300}}},
        {"prune": {**BODY["prune"], "gates": [{"metric": "python_docs.ppl", "max": 10**399}]}},
    ],
    ids=lambda changes: repr(changes)[:60],
)
def test_what_is_not_what_it_looks_like_is_refused(
    client: TestClient, changes: dict[str, Any]
) -> None:
    response = client.post("/v1/jobs", json={**BODY, **changes})
    assert_problem(response, 422, "VALIDATION_FAILED")


@pytest.mark.parametrize("number", ["1e400", "-1e999", "9" * 4400, "Infinity"])
def test_numbers_beyond_every_bound_are_no_json(client: TestClient, number: str) -> None:
    content = json.dumps(BODY).replace("0.5", number).encode()
    response = client.post("/v1/jobs", content=content, headers=JSON)
    assert_problem(response, 400, "MALFORMED_JSON")


@pytest.mark.parametrize("path", ["/v1/%e2%80%ae", "/v1/%0b", "/v1/%1b[2J", "/%ed%a0%80"])
def test_hidden_characters_of_a_path_are_shown(client: TestClient, path: str) -> None:
    problem = client.get(path).json()
    assert (problem["code"], "\ufffd" in problem["instance"]) == ("NOT_FOUND", True)
    assert not set("\u202e\v\x1b") & set(problem["instance"] + problem["detail"])


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("?" + "label=a:b&" * 4000, {}, 414, "URI_TOO_LONG"),
        ("?" + "%00" * 15_000, {}, 414, "URI_TOO_LONG"),
        ("", {"Accept": "a," * 50_000}, 431, "HEADERS_TOO_LARGE"),
        ("", {f"X-{number}": "x" for number in range(20_000)}, 431, "HEADERS_TOO_LARGE"),
    ],
    ids=["labels", "escapes", "accept", "many"],
)
def test_large_heads_are_refused_unread(
    client: TestClient, query: str, headers: dict[str, str], status: int, code: str
) -> None:
    response = client.get(f"/v1/jobs{query}", headers=headers)
    assert_problem(response, status, code)
    assert len(response.content) < 3000
