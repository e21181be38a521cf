"""The history of a job as pages and as a stream."""

from __future__ import annotations

import json
from threading import Timer
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.routes import events as routes
from tests.api.jobs import BODY, Service

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def finished(client: TestClient, service: Service) -> str:
    job_id = client.post("/v1/jobs", json=BODY).json()["id"]
    claim = service.claim()
    for step in (1, 2, 3):
        service.progress(claim, step)
    service.succeed(claim)
    return str(job_id)


def messages(text: str) -> list[dict[str, Any]]:
    """Parse a stream the plain way: one block per message, `field: value` lines."""
    parsed = []
    for block in text.split("\n\n"):
        lines = [line.split(": ", 1) for line in block.split("\n") if line and line[0] != ":"]
        fields = dict(lines)
        if "data" in fields:
            parsed.append({**fields, "data": json.loads(fields["data"])})
    return parsed


def test_page_tells_the_history_in_order(client: TestClient, finished: str) -> None:
    page = client.get(f"/v1/jobs/{finished}/events").json()
    assert page["object"] == "list"
    assert page["has_more"] is False
    assert [event["type"] for event in page["data"]] == [
        "job.queued",
        "job.started",
        "job.progress",
        "job.progress",
        "job.progress",
        "job.succeeded",
    ]
    progress = page["data"][2]
    assert progress["job_id"] == finished
    assert progress["detail"]["block"] == 1
    assert progress["detail"]["percent"] == 25
    last = page["data"][-1]
    assert (last["from_status"], last["to_status"]) == ("running", "succeeded")


def test_pages_follow_after(client: TestClient, finished: str) -> None:
    url = f"/v1/jobs/{finished}/events"
    everything = client.get(url).json()["data"]
    first = client.get(url, params={"limit": 2}).json()
    assert first["has_more"] is True
    rest = client.get(url, params={"after": first["data"][-1]["id"]}).json()
    assert first["data"] + rest["data"] == everything


@pytest.mark.parametrize("after", ["x", "evt_", "evt_9" * 40, "evt_" + "9" * 30, "evt_-1", "%00"])
def test_bad_event_ids_are_refused(client: TestClient, finished: str, after: str) -> None:
    response = client.get(f"/v1/jobs/{finished}/events", params={"after": after})
    assert response.status_code == 422
    headers = {**STREAM, "Last-Event-ID": after}
    assert client.get(f"/v1/jobs/{finished}/events", headers=headers).status_code == 422


def test_stream_ends_after_the_last_event(client: TestClient, finished: str) -> None:
    response = client.get(f"/v1/jobs/{finished}/events", headers=STREAM)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.text.startswith("retry: ")
    found = messages(response.text)
    assert [message["data"] for message in found] == client.get(
        f"/v1/jobs/{finished}/events"
    ).json()["data"]
    assert all(message["id"] == message["data"]["id"] for message in found)
    assert all(message["event"] == message["data"]["type"] for message in found)


def test_stream_resumes_after_the_last_event_seen(client: TestClient, finished: str) -> None:
    url = f"/v1/jobs/{finished}/events"
    everything = messages(client.get(url, headers=STREAM).text)
    headers = {**STREAM, "Last-Event-ID": everything[2]["id"]}
    assert messages(client.get(url, headers=headers).text) == everything[3:]
    headers = {**STREAM, "Last-Event-ID": everything[-1]["id"]}
    assert messages(client.get(url, headers=headers).text) == []


def test_stream_waits_for_what_happens_and_keeps_alive(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE_SECONDS", 0.2)
    job_id = client.post("/v1/jobs", json=BODY).json()["id"]
    timers = [Timer(1.5, lambda: service.fail(service.claim()))]
    for timer in timers:
        timer.start()
    text = client.get(f"/v1/jobs/{job_id}/events", headers=STREAM).text
    for timer in timers:
        timer.join()
    assert ": ping\n\n" in text
    types = [message["event"] for message in messages(text)]
    assert types == ["job.queued", "job.started", "job.failed"]
    assert messages(text)[-1]["data"]["detail"]["error"]["code"] == "MODEL_NOT_FINITE"


def test_more_events_than_one_page_all_arrive(client: TestClient, service: Service) -> None:
    job_id = client.post("/v1/jobs", json=BODY).json()["id"]
    claim = service.claim()
    for _ in range(120):
        service.progress(claim, 1)
    service.fail(claim)
    text = client.get(f"/v1/jobs/{job_id}/events", headers=STREAM).text
    assert len(messages(text)) == 123
