"""What a job says at submit: numbers that were decided in its place, and how long it may take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pruning_core.admission.estimate import CPU_SAMPLES, CPU_WINDOWS
from tests import tiny
from tests.api.conftest import Declared, opened
from tests.api.jobs import Service

BODY: dict[str, Any] = {"model": "hf://org/model-1B", "prune": {"method": "wanda", "sparsity": 0.5}}


@pytest.fixture
def on_cpu(sqlite_database_url: str, tmp_path: Path, declared: Declared) -> Iterator[TestClient]:
    service = Service.over(
        sqlite_database_url, tmp_path, device="cpu", flops=1e11, model_roots=(tmp_path,)
    )
    yield from opened(service, declared)
    service.database.dispose()


def test_on_a_cpu_a_job_says_what_it_takes_and_how_long(on_cpu: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    job = on_cpu.post("/v1/jobs", json=BODY, headers=headers).json()
    assert job["spec"]["prune"]["calibration"]["default_samples"] == CPU_SAMPLES
    assert job["spec"]["prune"]["evaluation"]["windows"] == CPU_WINDOWS
    (note,) = job["notes"]
    assert "on a CPU" in note
    assert 0 < job["estimate"]["minutes"]["low"] < job["estimate"]["minutes"]["high"]
    assert "1,000 million parameters (by its name)" in job["estimate"]["basis"]
    assert on_cpu.get(f"/v1/jobs/{job['id']}").json()["estimate"] == job["estimate"]
    assert on_cpu.post("/v1/jobs", json=BODY, headers=headers).json()["notes"] == job["notes"]


def test_a_local_model_is_counted_itself(on_cpu: TestClient, tmp_path: Path) -> None:
    model = tiny.save(tmp_path / "named-70B", "llama")
    job = on_cpu.post("/v1/jobs", json=BODY | {"model": model.as_uri()}).json()
    assert job["estimate"]["basis"].startswith("0 million parameters x ")
    assert job["estimate"]["basis"].endswith("not counted: waiting")


def test_a_refusal_is_the_same_whatever_the_machine(on_cpu: TestClient) -> None:
    prune = BODY["prune"] | {"calibration": ["none"]}
    answer = on_cpu.post("/v1/jobs", json=BODY | {"prune": prune})
    assert (answer.status_code, answer.json()["code"]) == (422, "DATASET_NOT_FOUND")


def test_where_nothing_is_known_of_the_workers_nothing_is_said(client: TestClient) -> None:
    job = client.post("/v1/jobs", json=BODY).json()
    assert (job["notes"], job["estimate"]) == ([], None)
    assert job["spec"]["prune"]["calibration"]["default_samples"] == 128
    assert job["spec"]["prune"]["evaluation"]["windows"] == 16
