"""Submit, read, list, cancel: through HTTP, on both databases where SQL decides."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from threading import Timer

import pytest
from fastapi.testclient import TestClient

from tests.api.jobs import BODY, Service


def submit(client: TestClient, **more: object) -> str:
    response = client.post("/v1/jobs", json={**BODY, **more})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def test_submit_echoes_the_whole_specification(client_on_both: TestClient) -> None:
    body = {**BODY, "name": "a name", "labels": {"team": "edge"}}
    response = client_on_both.post("/v1/jobs", json=body)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert response.headers["retry-after"].isdecimal()
    assert job["status"] == "queued"
    assert job["name"] == "a name"
    assert job["labels"] == {"team": "edge"}
    assert job["spec"]["model"] == {"ref": "hf://org/model", "revision": "main"}
    prune = job["spec"]["prune"]
    assert prune["method"] == {"name": "wanda"}
    assert prune["pattern"] == {"name": "row"}
    assert prune["calibration"]["tasks"] == [
        {"name": "python_docs", "samples": None, "weight": None}
    ]
    assert prune["calibration"]["seed"] == 42
    assert prune["evaluation"]["windows"] == 16
    assert job["spec_digest"].startswith("sha256:")


def test_equal_specifications_have_equal_digests(client: TestClient) -> None:
    long_form = {
        "model": {"ref": "hf://org/model", "revision": "main"},
        "prune": {
            "method": {"name": "wanda"},
            "sparsity": 0.5,
            "calibration": {"tasks": [{"name": "python_docs"}]},
        },
    }
    first, second = (client.post("/v1/jobs", json=body).json() for body in (BODY, long_form))
    assert first["id"] != second["id"]
    assert first["spec_digest"] == second["spec_digest"]


def test_same_idempotency_key_means_the_same_job(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    headers = {"Idempotency-Key": "a-key"}
    first = client_on_both.post("/v1/jobs", json=BODY, headers=headers)
    service_on_both.progress(service_on_both.claim(), 1)
    second = client_on_both.post("/v1/jobs", json=BODY, headers=headers)
    assert first.status_code == second.status_code == 202
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert len(client_on_both.get("/v1/jobs").json()["data"]) == 1


def test_idempotency_key_with_another_body_conflicts(client: TestClient) -> None:
    headers = {"Idempotency-Key": "a-key"}
    client.post("/v1/jobs", json=BODY, headers=headers)
    response = client.post("/v1/jobs", json={**BODY, "name": "other"}, headers=headers)
    assert response.status_code == 422
    assert response.json()["code"] == "IDEMPOTENCY_CONFLICT"


def test_idempotency_key_of_another_project_is_another_key(
    client: TestClient, service: Service
) -> None:
    headers = {"Idempotency-Key": "a-key"}
    first = client.post("/v1/jobs", json=BODY, headers=headers).json()
    headers["Authorization"] = f"Bearer {service.key(project='prj_b')}"
    second = client.post("/v1/jobs", json=BODY, headers=headers).json()
    assert first["id"] != second["id"]


def test_replay_is_answered_even_when_the_model_has_gone(tmp_path: Path, service: Service) -> None:
    task = tmp_path / "tasks" / "mine"
    task.mkdir(parents=True)
    (task / "calibration.jsonl").write_text('{"text": "%s"}' % ("word " * 2000))
    (task / "eval.jsonl").write_text('{"text": "words"}')
    settings = service.settings.model_copy(update={"tasks_dir": task.parent})
    body = {**BODY, "prune": {"method": "magnitude", "sparsity": 0.5, "calibration": ["mine"]}}
    headers = {"Idempotency-Key": "a-key", "Authorization": f"Bearer {service.secret}"}
    with TestClient(Service(settings, service.database, service.secret).app()) as client:
        first = client.post("/v1/jobs", json=body, headers=headers)
        shutil.rmtree(task)
        second = client.post("/v1/jobs", json=body, headers=headers)
        fresh = client.post(
            "/v1/jobs", json=body, headers={**headers, "Idempotency-Key": "another"}
        )
        count = len(client.get("/v1/jobs", headers=headers).json()["data"])
    assert first.status_code == 202, first.text
    assert second.json() == first.json()
    assert (fresh.status_code, fresh.json()["code"]) == (422, "DATASET_NOT_FOUND")
    assert count == 1


@pytest.mark.parametrize("key", ["a b", "x" * 256, "", "naïve"])
def test_malformed_idempotency_key_is_refused(client: TestClient, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    response = client.post("/v1/jobs", json=BODY, headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "Idempotency-Key"


def test_job_shows_progress_and_result(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    job_id = submit(client_on_both)
    assert client_on_both.get(f"/v1/jobs/{job_id}").json()["queue"] == {"position": 1}
    claim = service_on_both.claim()
    service_on_both.progress(claim, 1)
    response = client_on_both.get(f"/v1/jobs/{job_id}")
    job = response.json()
    assert response.headers["retry-after"].isdecimal()
    assert (job["status"], job["phase"], job["attempt"]["number"]) == ("running", "pruning", 1)
    assert job["progress"]["percent"] == 25
    assert job["progress"]["seconds_remaining"] == 9
    service_on_both.succeed(claim)
    response = client_on_both.get(f"/v1/jobs/{job_id}")
    job = response.json()
    assert "retry-after" not in response.headers
    assert job["status"] == "succeeded"
    assert job["result"]["achieved_sparsity"] == 0.5
    assert job["finished_at"].endswith("Z")


def test_failed_job_carries_its_error(client: TestClient, service: Service) -> None:
    job_id = submit(client)
    service.fail(service.claim())
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "failed"
    assert job["error"]["code"] == "MODEL_NOT_FINITE"


def test_unchanged_job_answers_304(client: TestClient, service: Service) -> None:
    job_id = submit(client)
    etag = client.get(f"/v1/jobs/{job_id}").headers["etag"]
    unchanged = client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert unchanged.status_code == 304
    assert unchanged.content == b""
    assert unchanged.headers["etag"] == etag
    service.progress(service.claim(), 1)
    changed = client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


def test_wait_returns_when_the_job_ends(client: TestClient, service: Service) -> None:
    job_id = submit(client)
    claim = service.claim()
    timer = Timer(0.5, service.fail, (claim,))
    timer.start()
    started = time.monotonic()
    job = client.get(f"/v1/jobs/{job_id}", params={"wait": 30}).json()
    timer.join()
    assert job["status"] == "failed"
    assert time.monotonic() - started < 10


def test_wait_with_an_etag_returns_when_the_job_changes(
    client: TestClient, service: Service
) -> None:
    job_id = submit(client)
    etag = client.get(f"/v1/jobs/{job_id}").headers["etag"]
    timer = Timer(0.5, lambda: service.progress(service.claim(), 1))
    timer.start()
    response = client.get(
        f"/v1/jobs/{job_id}", params={"wait": 30}, headers={"If-None-Match": etag}
    )
    timer.join()
    assert response.json()["status"] == "running"


def test_wait_ends_with_304_where_nothing_happens(client: TestClient) -> None:
    job_id = submit(client)
    etag = client.get(f"/v1/jobs/{job_id}").headers["etag"]
    started = time.monotonic()
    response = client.get(f"/v1/jobs/{job_id}", params={"wait": 1}, headers={"If-None-Match": etag})
    assert response.status_code == 304
    assert time.monotonic() - started >= 1


def test_pages_follow_the_cursor_and_the_link(client_on_both: TestClient) -> None:
    made = [submit(client_on_both) for _ in range(5)]
    seen: list[str] = []
    url = "/v1/jobs?limit=2"
    while url:
        response = client_on_both.get(url)
        page = response.json()
        seen += [job["id"] for job in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        url = response.links["next"]["url"] if "next" in response.links else ""
        assert bool(url) == page["has_more"]
    assert seen == made[::-1]
    ascending = client_on_both.get("/v1/jobs", params={"order": "asc"}).json()
    assert [job["id"] for job in ascending["data"]] == made


def test_filters(client_on_both: TestClient, service_on_both: Service) -> None:
    first = submit(client_on_both, labels={"team": "edge"})
    service_on_both.claim()
    other = {"model": "hf://org/other", "prune": {"method": "magnitude", "sparsity": 0.1}}
    second = submit(client_on_both, **other, labels={"team": "edge", "n": "1:2"})

    def found(query: str) -> list[str]:
        response = client_on_both.get(f"/v1/jobs?{query}")
        assert response.status_code == 200, response.text
        return [job["id"] for job in response.json()["data"]]

    assert found("status=running") == [first]
    assert found("status=succeeded") == []
    assert found("method=magnitude") == [second]
    assert found("model=hf://org/model") == [first]
    assert found("label=team:edge") == [second, first]
    assert found("label=team:edge&label=n:1:2") == [second]
    assert found("created_after=2020-01-01T00:00:00Z") == [second, first]
    assert found("created_after=2120-01-01T00:00:00%2B02:00") == []
    assert found(f"id={first}") == [first]
    assert found("id=job_0") == [second, first]
    assert found("name=a%20name") == []


@pytest.mark.parametrize("query", ["id=", "id=other_0", "id=job_0%0a", "id=job_%25", "name="])
def test_lookups_that_can_match_nothing_are_refused(client: TestClient, query: str) -> None:
    for route in ("jobs", "files"):
        response = client.get(f"/v1/{route}?{query.replace('job_', route[:-1] + '_')}")
        assert (response.status_code, response.json()["code"]) == (422, "VALIDATION_FAILED")


def test_cursor_serves_its_own_filters_only(client: TestClient) -> None:
    for _ in range(2):
        submit(client)
    cursor = client.get("/v1/jobs", params={"limit": 1}).json()["next_cursor"]
    response = client.get("/v1/jobs", params={"cursor": cursor, "status": "failed"})
    assert (response.status_code, response.json()["code"]) == (422, "CURSOR_INVALID")


def test_limit_is_clamped_above_and_refused_below(client: TestClient) -> None:
    assert client.get("/v1/jobs", params={"limit": 5000}).status_code == 200
    for limit in (0, -1, "x"):
        response = client.get("/v1/jobs", params={"limit": limit})
        assert response.status_code == 422
        assert response.json()["errors"][0]["parameter"] == "limit"


def test_queued_job_is_cancelled_at_once(client_on_both: TestClient) -> None:
    job_id = submit(client_on_both)
    response = client_on_both.post(f"/v1/jobs/{job_id}/cancel")
    assert response.status_code == 202
    assert response.json()["status"] == "cancelled"
    again = client_on_both.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "STATE_CONFLICT")


def test_running_job_is_cancelling_however_often_it_is_asked(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    job_id = submit(client_on_both)
    service_on_both.claim()
    first = client_on_both.post(f"/v1/jobs/{job_id}/cancel")
    second = client_on_both.post(f"/v1/jobs/{job_id}/cancel")
    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    assert first.json()["status"] == "cancelling"
    assert first.headers["retry-after"].isdecimal()
    listed = client_on_both.get("/v1/jobs", params={"status": "cancelling"}).json()["data"]
    assert [job["id"] for job in listed] == [job_id]


def test_admission_refuses_at_submit(client: TestClient, tmp_path: Path) -> None:
    outside = {**BODY, "model": f"file://{tmp_path}/model"}
    response = client.post("/v1/jobs", json=outside)
    assert (response.status_code, response.json()["code"]) == (403, "MODEL_NOT_ALLOWED")
    unknown = {**BODY, "prune": {**BODY["prune"], "calibration": ["no_such_task"]}}
    response = client.post("/v1/jobs", json=unknown)
    assert (response.status_code, response.json()["code"]) == (422, "DATASET_NOT_FOUND")
    assert client.get("/v1/jobs").json()["data"] == []
