"""Uploads through HTTP: every form of them, every way in which they are refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from api import schemas
from pruning_core.datasets.uploads import examine
from tests.api.jobs import Service
from tests.api.problems import assert_problem

JSONL = {"Content-Type": "application/jsonl"}
ITEMS = b"".join(b'{"text": "document number %d of mine"}\n' % n for n in range(4000))
QUESTIONS = b'{"question": "Is it?", "choices": ["yes", "no"], "answer": 0}\n' * 3


def post(client: TestClient, content: Any = ITEMS, query: str = "", **headers: str) -> Response:
    return client.post(f"/v1/files{query}", content=content, headers={**JSONL, **headers})


def uploaded(client: TestClient, content: bytes = ITEMS, query: str = "") -> dict[str, Any]:
    response = post(client, content, query)
    assert response.status_code == 201, response.text
    file: dict[str, Any] = response.json()
    return file


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def naming(calibration: str, evaluation: list[str] | None = None) -> dict[str, Any]:
    prune = {
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"tasks": [calibration], "seq_len": 16},
        "evaluation": {"tasks": evaluation, "seq_len": 16},
    }
    return {"model": "hf://org/model@main", "prune": prune}


def stored(service: Service) -> list[str]:
    """Return every file of the artifact store, drafts too."""
    root = service.settings.artifacts_dir
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_upload_read_list_download_delete(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    response = post(client_on_both, query="?name=my data.jsonl&use=calibration")
    file = response.json()
    assert response.status_code == 201
    assert set(file) == set(schemas.File.model_fields)
    path = f"/v1/files/{file['id']}"
    assert response.headers["location"] == path
    assert file["task"] == f"file:{file['id']}"
    assert (file["name"], file["use"], file["format"]) == ("my data.jsonl", "calibration", "jsonl")
    assert (file["kind"], file["items"], file["bytes"]) == ("text", 4000, len(ITEMS))
    assert file["sha256"] == hashlib.sha256(ITEMS).hexdigest()
    assert client_on_both.get(path).json() == file
    page = client_on_both.get("/v1/files").json()
    assert (page["data"], page["has_more"], page["next_cursor"]) == ([file], False, None)
    content = client_on_both.get(f"{path}/content")
    assert content.content == ITEMS
    assert content.headers["content-disposition"] == "attachment; filename*=utf-8''my%20data.jsonl"
    assert content.headers["content-type"] == "application/jsonl"
    assert content.headers["repr-digest"] == digest(ITEMS)
    deleted = client_on_both.delete(path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert_problem(client_on_both.get(path), 404, "NOT_FOUND")
    assert_problem(client_on_both.delete(path), 404, "NOT_FOUND")
    assert stored(service_on_both) == []


def test_the_same_bytes_again_are_the_same_file(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    first = uploaded(client_on_both)
    again = post(client_on_both, query="?name=other")
    assert (again.status_code, again.json()) == (200, first)
    assert again.headers["location"] == f"/v1/files/{first['id']}"
    assert uploaded(client_on_both, query="?use=evaluation")["id"] != first["id"]
    assert len(stored(service_on_both)) == 2


@pytest.mark.parametrize(
    ("content_type", "content", "found"),
    [
        ("application/jsonl", QUESTIONS, ("jsonl", "multiple_choice", 3, "upload.jsonl")),
        ("application/x-ndjson; charset=UTF-8", ITEMS, ("jsonl", "text", 4000, "upload.jsonl")),
        ("application/json", b'[{"text": "a"}, {"text": "b"}]', ("json", "text", 2, "upload.json")),
        ("text/csv", b"text\na\nb\n", ("csv", "text", 2, "upload.csv")),
        ("Text/Plain; charset=utf-8", b"one\n\ntwo", ("text", "text", 2, "upload.txt")),
    ],
)
def test_media_types(
    client: TestClient, content_type: str, content: bytes, found: tuple[str, str, int, str]
) -> None:
    file = post(client, content, **{"Content-Type": content_type}).json()
    assert (file["format"], file["kind"], file["items"], file["name"]) == found
    served = client.get(f"/v1/files/{file['id']}/content").headers["content-type"].lower()
    asked = content_type.lower().replace("x-ndjson; charset=utf-8", "jsonl")
    assert served.partition(";")[0] == asked.partition(";")[0]


@pytest.mark.parametrize(
    ("part", "data", "found"),
    [
        (("a.jsonl", QUESTIONS, "application/octet-stream"), {"use": "evaluation"}, "jsonl"),
        (("C:\\texts\\a.txt", b"{one}\n\ntwo", "application/octet-stream"), {}, "text"),
        (("a", QUESTIONS, "application/jsonl"), {"name": "a name"}, "jsonl"),
        (("ä", b"one\n\ntwo", "application/octet-stream"), {}, "text"),
        (("a", QUESTIONS, "application/octet-stream"), {}, "jsonl"),
    ],
)
def test_form(client: TestClient, part: Any, data: dict[str, str], found: str) -> None:
    response = client.post("/v1/files", files={"file": part}, data=data)
    assert response.status_code == 201, response.text
    file = response.json()
    assert file["format"] == found
    assert file["use"] == data.get("use", "both")
    assert file["name"] == data.get("name", part[0].rpartition("\\")[2])
    assert client.get(f"/v1/files/{file['id']}/content").content == part[1]


def test_five_megabytes_are_streamed(client: TestClient, service: Service) -> None:
    line = json.dumps({"text": "word " * 2000}).encode() + b"\n"

    def pieces() -> Iterator[bytes]:
        for _ in range(500):
            yield line

    content = line * 500
    file = post(client, pieces(), **{"Repr-Digest": digest(content)}).json()
    assert (file["bytes"], file["items"]) == (len(content), 500)
    assert len(content) > 5_000_000 > service.settings.max_body_bytes
    part = client.get(f"/v1/files/{file['id']}/content", headers={"Range": "bytes=-5"})
    assert (part.status_code, part.content) == (206, content[-5:])
    assert stored(service) == [f"files/{file['id']}"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "upload.jsonl: empty"),
        (gzip.compress(ITEMS), "compressed and binary files are not taken"),
        (b'{"text": "a"}\n{"text": "\xff"}', "upload.jsonl, line 2: not UTF-8"),
        (b'{"text": "a"}\n\n{"text": ""}', "upload.jsonl, line 3: not an object with `text`"),
        (b'{"text": "a"}\n{"text": "\0"}', "upload.jsonl, line 2: a NUL byte"),
        (b'{"text": "a"}\nno json', "upload.jsonl, line 2: not JSON"),
    ],
)
def test_bad_data_is_refused_with_its_line_and_leaves_nothing(
    client: TestClient, service: Service, content: bytes, words: str
) -> None:
    problem = assert_problem(post(client, content), 422, "DATASET_INVALID")
    assert words in problem["detail"]
    assert client.get("/v1/files").json()["data"] == []
    assert stored(service) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/xml"},
        {"Content-Type": "application/gzip"},
        {"Content-Type": ""},
        {"Content-Type": "text/plain; charset=latin-1"},
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "identity, br"},
    ],
)
def test_other_types_and_encodings_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    problem = assert_problem(post(client, **headers), 415, "CONTENT_TYPE_UNSUPPORTED")
    assert problem["detail"]


def test_identity_is_no_encoding(client: TestClient) -> None:
    assert post(client, **{"Content-Encoding": "identity"}).status_code == 201


def test_a_part_of_another_type_is_refused(client: TestClient) -> None:
    response = client.post("/v1/files", files={"file": ("a.gz", b"x", "application/gzip")})
    assert_problem(response, 415, "CONTENT_TYPE_UNSUPPORTED")


@pytest.fixture
def small(service: Service) -> Iterator[TestClient]:
    """A client of a service that takes files of 1000 bytes."""
    settings = service.settings.model_copy(update={"max_file_bytes": 1000})
    with TestClient(Service(settings, service.database, service.secret).app()) as client:
        client.headers["Authorization"] = f"Bearer {service.secret}"
        yield client


@pytest.mark.parametrize("size", [1001, 70_000])
def test_large_files_are_refused_however_they_come(
    small: TestClient, service: Service, size: int
) -> None:
    content = b"a" * size

    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 100):
            yield content[start : start + 100]

    for body in (content, pieces()):
        response = post(small, body, **{"Content-Type": "text/plain"})
        assert_problem(response, 413, "BODY_TOO_LARGE")
    response = small.post("/v1/files", files={"file": ("a.txt", content)})
    assert_problem(response, 413, "BODY_TOO_LARGE")
    assert stored(service) == []


def test_a_file_of_just_the_limit_is_taken(small: TestClient) -> None:
    assert post(small, b"a" * 1000, **{"Content-Type": "text/plain"}).status_code == 201
    response = small.post("/v1/files", files={"file": ("a.txt", b"b" * 1000)})
    assert response.status_code == 201


def test_the_bound_of_other_bodies_stays(client: TestClient) -> None:
    assert_problem(client.post("/v1/jobs", content=b" " * 2_000_000), 413, "BODY_TOO_LARGE")


def test_a_length_that_lies_is_refused(client: TestClient, service: Service) -> None:
    response = post(client, iter([ITEMS]), **{"Content-Length": str(len(ITEMS) + 1)})
    assert_problem(response, 400, "BODY_INCOMPLETE")
    assert stored(service) == []


def test_digest_is_checked(client: TestClient, service: Service) -> None:
    wrong = {"Repr-Digest": digest(b"other")}
    problem = assert_problem(post(client, **wrong), 422, "DIGEST_MISMATCH")
    assert hashlib.sha256(ITEMS).hexdigest() in problem["detail"]
    form = client.post("/v1/files", files={"file": ("a.jsonl", ITEMS)}, headers=wrong)
    assert_problem(form, 422, "DIGEST_MISMATCH")
    assert stored(service) == []
    right = {"Repr-Digest": f"md5=:AAAA:, {digest(ITEMS)}"}
    assert post(client, **right).status_code == 201


@pytest.mark.parametrize("value", ["sha-256=abc", "sha-256=:!!:", "sha-256=:AAAA:", "sha-256="])
def test_malformed_digest_is_refused(client: TestClient, value: str) -> None:
    problem = assert_problem(post(client, **{"Repr-Digest": value}), 422, "VALIDATION_FAILED")
    assert problem["errors"][0]["parameter"] == "Repr-Digest"


def test_digests_of_other_kinds_are_passed_over(client: TestClient) -> None:
    assert post(client, **{"Repr-Digest": "sha-512=:AAAA:"}).status_code == 201


@pytest.mark.parametrize("query", ["?use=training", "?name=", "?name=a%00b", "?use=both&x=1"])
def test_query_is_checked(client: TestClient, query: str) -> None:
    problem = assert_problem(post(client, query=query), 422, "VALIDATION_FAILED")
    assert problem["errors"][0]["parameter"] in ("use", "name", "x")


@pytest.mark.parametrize(
    ("files", "data", "pointer"),
    [
        ({"file": ("a.txt", b"x")}, {"use": "training"}, "/use"),
        ({"file": ("a.txt", b"x")}, {"other": "x"}, "/other"),
        ({"file": ("a.txt", b"x")}, {"name": "x" * 201}, "/name"),
        ({"data": ("a.txt", b"x")}, {}, "/file"),
        ({"use": (None, "both")}, {}, "/file"),
    ],
)
def test_form_is_checked(client: TestClient, files: Any, data: Any, pointer: str) -> None:
    response = client.post("/v1/files", files=files, data=data)
    problem = assert_problem(response, 422, "VALIDATION_FAILED")
    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"no form"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n--x--"),
    ],
)
def test_broken_forms_are_refused(
    client: TestClient, service: Service, content_type: str, content: bytes
) -> None:
    response = post(client, content, **{"Content-Type": content_type})
    assert_problem(response, 422, response.json()["code"])
    assert stored(service) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_form_without_its_end_is_refused(client: TestClient, service: Service) -> None:
    """Starlette leaves the temporary file of a part that never ends to the garbage collector, which warns."""
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
    response = post(client, part, **{"Content-Type": "multipart/form-data; boundary=x"})
    assert_problem(response, 422, "VALIDATION_FAILED")
    assert stored(service) == []


def test_two_files_in_a_form_are_refused(client: TestClient) -> None:
    parts = [("file", ("a.txt", b"x")), ("file", ("b.txt", b"y"))]
    assert_problem(client.post("/v1/files", files=parts), 422, "VALIDATION_FAILED")


def test_pages_follow_the_cursor(client_on_both: TestClient) -> None:
    made = [uploaded(client_on_both, b'{"text": "%d"}' % n)["id"] for n in range(5)]
    seen: list[str] = []
    url = "/v1/files?limit=2"
    while url:
        response = client_on_both.get(url)
        seen += [file["id"] for file in response.json()["data"]]
        url = response.links["next"]["url"] if "next" in response.links else ""
    assert sorted(seen) == sorted(made)
    ascending = client_on_both.get("/v1/files", params={"order": "asc"}).json()
    assert [file["id"] for file in ascending["data"]] == seen[::-1]
    assert client_on_both.get("/v1/files", params={"use": "evaluation"}).json()["data"] == []
    for query, count in ((f"id={made[0]}", 1), ("id=file_", 5), ("id=file_Z", 0), ("name=x", 0)):
        assert len(client_on_both.get(f"/v1/files?{query}").json()["data"]) == count
    named = client_on_both.get("/v1/files", params={"name": "upload.jsonl"}).json()["data"]
    assert len(named) == 5


@pytest.mark.parametrize(
    "query", ["cursor=x", "limit=0", "use=x", "order=up", "status=running", "cursor=%00"]
)
def test_hostile_lists_are_refused(client: TestClient, query: str) -> None:
    response = client.get(f"/v1/files?{query}")
    assert_problem(response, 422, response.json()["code"])


def test_another_project_s_file_is_none(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    file = uploaded(client_on_both)
    other = {"Authorization": f"Bearer {service_on_both.key(project='prj_b')}"}
    path = f"/v1/files/{file['id']}"
    for response in (
        client_on_both.get(path, headers=other),
        client_on_both.get(f"{path}/content", headers=other),
        client_on_both.delete(path, headers=other),
    ):
        assert_problem(response, 404, "NOT_FOUND")
    assert client_on_both.get("/v1/files", headers=other).json()["data"] == []
    job = client_on_both.post("/v1/jobs", json=naming(file["task"]), headers=other)
    assert_problem(job, 422, "DATASET_NOT_FOUND")
    own = post(client_on_both, **other)
    assert (own.status_code, own.json()["id"] == file["id"]) == (201, False)


def test_scopes(client: TestClient, service: Service) -> None:
    file = uploaded(client)
    path = f"/v1/files/{file['id']}"
    reader = {"Authorization": f"Bearer {service.key(scopes=('jobs:read',))}"}
    assert client.get(path, headers=reader).status_code == 200
    for response in (
        post(client, **reader),
        client.delete(path, headers=reader),
        client.get(f"{path}/content", headers=reader),
    ):
        assert_problem(response, 403, "SCOPE_MISSING")
    assert_problem(client.post("/v1/files", headers={"Authorization": ""}), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize("file_id", ["file_x", "file_01JDA2M9Q4XW5S8ZK6B7C3D1EF", "%00", "💣"])
def test_unknown_file(client: TestClient, file_id: str) -> None:
    for response in (
        client.get(f"/v1/files/{file_id}"),
        client.get(f"/v1/files/{file_id}/content"),
        client.delete(f"/v1/files/{file_id}"),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")


def test_a_job_names_a_file_which_is_kept_as_long_as_it_waits_or_runs(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    file = uploaded(client_on_both)
    job = client_on_both.post("/v1/jobs", json=naming(file["task"]))
    assert job.status_code == 202, job.text
    assert job.json()["spec"]["prune"]["calibration"]["tasks"][0]["name"] == file["task"]
    path = f"/v1/files/{file['id']}"
    problem = assert_problem(client_on_both.delete(path), 409, "FILE_IN_USE")
    assert job.json()["id"] in problem["detail"]
    claim = service_on_both.claim()
    assert_problem(client_on_both.delete(path), 409, "FILE_IN_USE")
    service_on_both.succeed(claim)
    assert client_on_both.delete(path).status_code == 204


@pytest.mark.parametrize(
    ("calibration", "evaluation", "pointer"),
    [(True, False, "/prune/calibration"), (False, True, "/prune/evaluation/tasks")],
)
def test_a_job_that_names_no_file_of_ours_is_refused(
    client: TestClient, calibration: bool, evaluation: bool, pointer: str
) -> None:
    unknown = "file:file_01JDA2M9Q4XW5S8ZK6B7C3D1EF"
    body = naming(
        unknown if calibration else "python_docs", [unknown] if evaluation else ["python_docs"]
    )
    problem = assert_problem(client.post("/v1/jobs", json=body), 422, "DATASET_NOT_FOUND")
    assert problem["errors"][0]["pointer"] == pointer
    assert client.get("/v1/jobs").json()["data"] == []


def test_the_same_bytes_neither_calibrate_nor_evaluate_under_two_names(client: TestClient) -> None:
    calibrating = uploaded(client, query="?use=calibration")["task"]
    evaluating = uploaded(client, query="?use=evaluation")["task"]
    response = client.post("/v1/jobs", json=naming(calibrating, [evaluating]))
    assert_problem(response, 422, "DATA_LEAKAGE")


def test_a_file_does_only_what_it_was_uploaded_for(client: TestClient) -> None:
    calibrating = uploaded(client, query="?use=calibration")["task"]
    evaluating = uploaded(client, query="?use=evaluation")["task"]
    response = client.post("/v1/jobs", json=naming(evaluating, []))
    assert_problem(response, 422, "DATASET_NOT_FOUND")
    response = client.post("/v1/jobs", json=naming("python_docs", [calibrating]))
    assert_problem(response, 422, "DATA_LEAKAGE")


def test_replay_is_answered_after_the_file_has_gone(client: TestClient, service: Service) -> None:
    file = uploaded(client)
    headers = {"Idempotency-Key": "a-key"}
    first = client.post("/v1/jobs", json=naming(file["task"]), headers=headers)
    service.succeed(service.claim())
    client.delete(f"/v1/files/{file['id']}")
    second = client.post("/v1/jobs", json=naming(file["task"]), headers=headers)
    assert (second.status_code, second.json()) == (202, first.json())
    fresh = client.post("/v1/jobs", json=naming(file["task"]))
    assert_problem(fresh, 422, "DATASET_NOT_FOUND")


def test_openapi_shows_both_forms(client: TestClient) -> None:
    upload = client.get("/openapi.json").json()["paths"]["/v1/files"]["post"]
    assert set(upload["requestBody"]["content"]) == {
        "application/jsonl",
        "application/x-ndjson",
        "application/json",
        "text/csv",
        "text/tab-separated-values",
        "text/plain",
        "multipart/form-data",
    }
    assert {"200", "201", "400", "401", "403", "413", "415", "422"} <= set(upload["responses"])


def lines(count: int) -> bytes:
    return b'{"text":"a"}\n' * count


def test_many_lines_cost_another_process(client: TestClient, tmp_path: Path) -> None:
    """The interpreter that answers others does next to nothing while a large upload is checked."""
    content = lines(150_000)
    (tmp_path / "same").write_bytes(content)
    began = time.process_time()
    assert examine(tmp_path / "same", name="same")[2] == 150_000
    cost, began = time.process_time() - began, time.process_time()
    assert post(client, content).json()["items"] == 150_000
    assert time.process_time() - began < cost / 2


def test_a_check_that_takes_too_long_is_refused_and_leaves_nothing(
    sqlite_database_url: str, tmp_path: Path
) -> None:
    service = Service.over(sqlite_database_url, tmp_path, examine_seconds=0.01)
    with TestClient(service.app()) as client:
        client.headers["Authorization"] = f"Bearer {service.secret}"
        problem = post(client, lines(100_000)).json()
        assert (problem["status"], problem["code"]) == (422, "CHECK_TIMED_OUT")
        assert "longer than 0.01 s" in problem["detail"]
        assert client.get("/v1/files").json()["data"] == []
        assert post(client, ITEMS).status_code == 201
    assert len(stored(service)) == 1
    service.database.dispose()


def test_large_and_small_uploads_meet_the_same_check(client: TestClient) -> None:
    for content in (lines(3) + b"{}\n", lines(30_000) + b"{}\n"):
        problem = post(client, content).json()
        assert problem["code"] == "DATASET_INVALID"
        assert f"line {content.count(b'text') + 1}: " in problem["detail"]


def test_single_bytes_are_gathered(client: TestClient) -> None:
    """A hop to a thread for every byte that a sender sends by itself would cost a thousand times its writing."""

    def bytes_of() -> Iterator[bytes]:
        for number in range(20_000):
            yield ITEMS[number : number + 1]

    began = time.process_time()
    assert post(client, bytes_of()).status_code in (201, 422)
    assert time.process_time() - began < 2


@pytest.fixture
def full(sqlite_database_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """A service whose disk has room for a megabyte, which the process may not write beyond."""
    service = Service.over(sqlite_database_url, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with TestClient(service.app()) as client:
        client.headers["Authorization"] = f"Bearer {service.secret}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            yield client
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
    assert [path for path in stored(service) if path.startswith("drafts/")] == []
    service.database.dispose()


@pytest.mark.parametrize("as_form", [False, True])
def test_a_disk_that_fills_up_is_said(full: TestClient, as_form: bool) -> None:
    content = lines(200_000)
    if as_form:
        response = full.post("/v1/files", files={"file": ("a.jsonl", content)})
    else:
        response = post(full, content)
    problem = assert_problem(response, 507, "DISK_FULL")
    assert (problem["class"], problem["retryable"]) == ("system", False)
    assert post(full, ITEMS).status_code == 201
