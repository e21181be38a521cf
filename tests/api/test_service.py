"""Discovery, health, the document of the interface, and what the process is made of."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api import schemas
from pruning_core.spec.methods import METHODS
from secateur.config import child_environment
from tests.api.jobs import BODY, Service
from tests.pruning_core.hub_stand_in import serving


def test_methods_are_those_of_the_vocabulary(client: TestClient) -> None:
    found = client.get("/v1/methods").json()["data"]
    assert [method["name"] for method in found] == [
        method.model_fields["name"].default for method in METHODS
    ]
    for method in found:
        assert client.get(f"/v1/methods/{method['name']}").json() == method
        assert method["params"]["type"] == "object"
        assert method["default_pattern"] in method["patterns"]
        assert method["summary"]


def test_unknown_method_suggests_a_near_one(client: TestClient) -> None:
    response = client.get("/v1/methods/wnada")
    assert response.status_code == 404
    assert response.json()["suggestions"] == ["did you mean `wanda`?"]


def tasks_of(service: Service) -> dict[str, Any]:
    with TestClient(service.app()) as client:
        client.headers["Authorization"] = f"Bearer {service.secret}"
        return {task["name"]: task for task in client.get("/v1/tasks").json()["data"]}


def test_tasks_hold_the_built_in_one(service: Service) -> None:
    task = tasks_of(service)["python_docs"]
    assert (task["built_in"], task["reachable"], task["reason"]) == (True, True, None)
    assert task["calibration_bytes"] > 100_000


@pytest.mark.parametrize("answers", [True, False])
def test_tasks_say_whether_their_hub_answers(
    answers: bool, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "eval.jsonl").write_text("{}")
    (tmp_path / "broken.toml").write_text("kind =")
    with serving({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url if answers else "http://127.0.0.1:9")
        settings = service.settings.model_copy(update={"tasks_dir": tmp_path})
        tasks = tasks_of(Service(settings, service.database, service.secret))
    assert (tasks["c4"]["origin"], tasks["c4"]["calibration_bytes"]) == ("hub", None)
    assert tasks["c4"]["reachable"] is answers
    assert (tasks["boolq"]["origin"], tasks["boolq"]["reachable"]) == ("folder", True)
    assert (tasks["boolq"]["calibration_bytes"], tasks["boolq"]["evaluation_bytes"]) == (0, 2)
    assert not tasks["economics_text"]["reachable"]
    assert "economics_text" in tasks["economics_text"]["reason"]
    assert "broken" not in tasks


def test_a_hub_that_is_switched_off_is_not_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        task = tasks_of(service)["c4"]
    assert (task["reachable"], "HF_HUB_OFFLINE" in task["reason"]) == (False, True)


def test_a_hub_that_never_answers_keeps_the_list_waiting_for_a_second(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert tasks_of(service)["c4"]["reachable"] is False
        assert time.monotonic() - begun < 10  # one wait in all, not one per task; busy machines


def test_health_needs_no_key(service_on_both: Service) -> None:
    with TestClient(service_on_both.app()) as client:
        assert client.get("/livez").json() == {"status": "ok"}
        ready = {"status": "ready", "database": "ok", "broker": "none"}
        assert client.get("/readyz").json() == ready


def test_broker_that_is_away_is_reported_and_harmless(service: Service) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"redis://127.0.0.1:{port}/0"
    settings = service.settings.model_copy(update={"broker_url": url})
    with TestClient(Service(settings, service.database, service.secret).app()) as client:
        client.headers["Authorization"] = f"Bearer {service.secret}"
        response = client.get("/readyz")
        assert (response.status_code, response.json()["broker"]) == (200, "away")
        started = time.monotonic()
        assert client.post("/v1/jobs", json=BODY).status_code == 202
        assert time.monotonic() - started < 1


def test_frozen_broker_delays_no_submit(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings = service.settings.model_copy(update={"broker_url": url})
        with TestClient(Service(settings, service.database, service.secret).app()) as client:
            client.headers["Authorization"] = f"Bearer {service.secret}"
            started = time.monotonic()
            for _ in range(5):
                assert client.post("/v1/jobs", json=BODY).status_code == 202
            assert time.monotonic() - started < 2


def test_reachable_broker_is_ok(service: Service, redis_url: str) -> None:
    settings = service.settings.model_copy(update={"broker_url": redis_url})
    with TestClient(Service(settings, service.database, service.secret).app()) as client:
        assert client.get("/readyz").json()["broker"] == "ok"


def test_many_waiting_clients_leave_room_for_others(client: TestClient) -> None:
    job_id = client.post("/v1/jobs", json=BODY).json()["id"]
    with ThreadPoolExecutor(100) as pool:
        waiting = [
            pool.submit(client.get, f"/v1/jobs/{job_id}", params={"wait": 4}) for _ in range(100)
        ]
        time.sleep(1)
        started = time.monotonic()
        assert client.get("/v1/methods").status_code == 200
        assert client.post("/v1/jobs", json=BODY).status_code == 202
        elapsed = time.monotonic() - started
        assert all(future.result().status_code == 200 for future in waiting)
    assert elapsed < 3


def test_openapi_documents_problems_on_every_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, item in document["paths"].items():
        for operation in item.values():
            problems = {
                status
                for status, answer in operation["responses"].items()
                if "application/problem+json" in answer.get("content", {})
            }
            assert {"500", "503"} <= problems
            assert ("401" in problems) == path.startswith("/v1/")
    submit = document["paths"]["/v1/jobs"]["post"]
    assert {"400", "401", "403", "413", "415", "422"} <= set(submit["responses"])
    assert submit["requestBody"]["content"].keys() == {"application/json"}


def schemas_in(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("title"), str):
            yield node
        for value in node.values():
            yield from schemas_in(value)
    elif isinstance(node, list):
        for one in node:
            yield from schemas_in(one)


def test_no_two_schemas_have_one_title(client: TestClient) -> None:
    """Generators make classes of titles: of two with one name a client loses one, and all that uses it."""
    document = client.get("/openapi.json").json()
    found = {
        id(one): one["title"]
        for part in ("paths", "components")
        for one in schemas_in(document[part])
    }
    assert sorted(found.values()) == sorted(set(found.values()))
    assert set(found.values()) == set(document["components"]["schemas"])
    assert {"Report", "PruneSpecInput", "PruneSpecOutput", "Problem"} <= set(found.values())


def test_every_reference_of_openapi_leads_somewhere(client: TestClient) -> None:
    text = client.get("/openapi.json").text
    named = set(re.findall(r'"#/components/schemas/([^"]*)"', text))
    assert named <= set(client.get("/openapi.json").json()["components"]["schemas"])
    assert '"default":{' not in text


def test_conflicts_ranges_and_a_full_disk_are_declared(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    job, file = "/v1/jobs/{job_id}", "/v1/files/{file_id}"
    for method, path, status in [
        ("post", "/v1/jobs", "409"),
        ("post", f"{job}/cancel", "409"),
        ("get", f"{job}/report", "409"),
        ("get", f"{job}/report.html", "409"),
        ("get", f"{job}/manifest", "409"),
        ("get", f"{job}/artifacts/{{path}}", "409"),
        ("get", f"{job}/artifacts/{{path}}", "416"),
        ("get", f"{file}/content", "416"),
        ("delete", file, "409"),
        ("post", "/v1/files", "507"),
        ("post", "/v1/jobs", "507"),
    ]:
        assert "application/problem+json" in paths[path][method]["responses"][status]["content"]


def test_answers_are_what_openapi_says(client: TestClient, service: Service) -> None:
    job = client.post("/v1/jobs", json=BODY).json()
    assert set(job) == set(schemas.Job.model_fields)
    schemas.Job.model_validate(job)
    schemas.EventPage.model_validate(client.get(f"/v1/jobs/{job['id']}/events").json())


def test_importing_the_front_end_imports_no_torch() -> None:
    code = (
        "import sys, api.app, api.__main__; "
        "heavy = {'torch', 'transformers', 'safetensors', 'worker'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unmigrated_database_is_refused_with_the_remedy(tmp_path: Path) -> None:
    environment = child_environment({"SECATEUR_DATA_DIR": str(tmp_path), "SECATEUR_PORT": "0"})
    done = subprocess.run(
        [sys.executable, "-m", "api"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "python -m store migrate" in done.stdout


def test_threads_end_with_the_application(service: Service) -> None:
    before = threading.active_count()
    settings = service.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with TestClient(Service(settings, service.database, service.secret).app()):
        pass
    assert "doorbell" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() <= before + 1


def test_trace_of_the_caller_is_logged(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = "a" * 32
    client.get("/livez", headers={"traceparent": f"00-{trace}-{'b' * 16}-01"})
    assert trace in capsys.readouterr().out
