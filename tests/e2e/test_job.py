"""The main job, end to end: submitted, pruned by a worker, watched, downloaded, loaded."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur import Client
from secateur.errors import ApiError
from tests import tiny
from tests.conftest import redis_of_its_own
from tests.e2e.service import serving
from tests.servers import RedisServer, postgres_database

BLOCKS = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.save(folder / "llama", "llama", num_hidden_layers=BLOCKS)
    tiny.save(folder / "slow", "llama", num_hidden_layers=12, hidden_size=64)
    return folder


@pytest.fixture(scope="module")
def embedded(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, models: Path
) -> Iterator[Client]:
    """SQLite without a broker; one service for all tests."""
    folder = tmp_path_factory.mktemp("embedded")
    shutil.copyfile(sqlite_template, folder / "secateur.db")
    with serving(folder / "data", f"sqlite:///{folder}/secateur.db", models=models) as client:
        yield client


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    yield from redis_of_its_own(request)


@pytest.fixture(scope="module")
def scaled(
    postgres_url: str,
    postgres_template: str,
    broker: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
    models: Path,
) -> Iterator[Client]:
    """Postgres and Redis with a real Celery worker; one service for all tests."""
    folder, name = tmp_path_factory.mktemp("scaled"), f"secateur_test_{secrets.token_hex(6)}"
    with (
        postgres_database(postgres_url, name, template=postgres_template) as url,
        serving(folder / "data", url, models=models, broker_url=broker.url) as client,
    ):
        yield client


@pytest.fixture(params=["embedded", "scaled"])
def client(request: pytest.FixtureRequest) -> Client:
    """On either service."""
    found: Client = request.getfixturevalue(request.param)
    return found


def spec(samples: int = 8) -> dict[str, Any]:
    return {
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"tasks": [{"name": "python_docs", "samples": samples}], "seq_len": 128},
        "evaluation": {"windows": 2, "seq_len": 64},
    }


def check_result(client: Client, job_id: str, destination: Path) -> None:
    """Download and load as a user would, and compare with what the service says."""
    report = client.report(job_id)
    manifest = client.manifest(job_id)
    folder = client.download(job_id, destination)
    for file in manifest.files:
        content = (folder / file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256
    assert {file.path for file in manifest.files} == {path.name for path in folder.iterdir()}
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    weights = [m.weight for m in model.base_model.modules() if isinstance(m, torch.nn.Linear)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros * 2 == sum(weight.numel() for weight in weights)
    assert report["sparsity"] == 0.5
    (measured,) = report["perplexity"]
    assert measured["tokens"] == 2 * 63
    assert measured["dense"] > 1
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("def f", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[1] > 3


def test_submit_watch_download_load(client: Client, models: Path, tmp_path: Path) -> None:
    job = client.submit(models / "llama", spec(), name="first", labels={"team": "edge"})
    events = list(client.watch(job.id))
    types = [event.type for event in events]
    assert (types[0], types[-1]) == ("job.queued", "job.succeeded")
    assert types.count("job.started") == 1
    blocks = [e.detail["block"] for e in events if e.detail.get("block") is not None]
    assert blocks == list(range(BLOCKS))
    finished = client.get(job.id)
    assert finished.progress is not None
    assert finished.progress.percent == 100
    assert finished.result is not None
    assert finished.result["achieved_sparsity"] == 0.5
    check_result(client, job.id, tmp_path / "checkpoint")
    assert [found.id for found in client.jobs(labels={"team": "edge"})] == [job.id]


def test_units_removed_then_fine_tuned_download_smaller_and_load(
    embedded: Client, models: Path, tmp_path: Path
) -> None:
    asked = spec(samples=32) | {
        "method": {"name": "goa", "reconstruct": True},
        "sparsity": 0.25,
        "recovery": {"steps": 4, "batch": 2, "seq_len": 64},
    }
    job = embedded.wait(embedded.submit(models / "llama", asked).id, timeout=180)
    job.raise_for_status()
    assert job.result is not None
    report = embedded.report(job.id)
    before, after = report["parameters"], report["parameters_after"]
    assert after < 0.8 * before
    assert job.result["params_after"] == after
    assert report["bytes_after"] == 4 * after
    assert report["recovery"]["steps"] == 4
    folder = embedded.download(job.id, tmp_path / "checkpoint")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == after
    assert model.config.num_key_value_heads == 1
    assert not (folder / "model.safetensors").stat().st_size > report["bytes_before"]


def test_cancel_stops_a_running_job(client: Client, models: Path) -> None:
    job = client.submit(models / "slow", spec(samples=256))
    for event in client.watch(job.id):
        if event.type == "job.progress":
            break
    assert client.cancel(job.id).status == "cancelling"
    assert client.cancel(job.id).status in ("cancelling", "cancelled")
    assert client.wait(job.id, timeout=60).status == "cancelled"
    with pytest.raises(ApiError) as refused:
        client.cancel(job.id)
    assert refused.value.code == "STATE_CONFLICT"
    with pytest.raises(ApiError) as refused:
        client.manifest(job.id)
    assert refused.value.code == "STATE_CONFLICT"


def test_a_model_that_turns_out_bad_ends_failed_with_its_code(
    embedded: Client, models: Path
) -> None:
    folder = models / "nan"
    model = tiny.build("llama")
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    job = embedded.wait(embedded.submit(folder, spec()).id, timeout=120)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "MODEL_NOT_FINITE"
    assert "layers.1.mlp.up_proj" in job.error["detail"]


def test_redis_flushed_and_stopped_in_mid_job(
    scaled: Client, broker: RedisServer, models: Path, tmp_path: Path
) -> None:
    job = scaled.submit(models / "slow", spec(samples=64))
    flushed = False
    for event in scaled.watch(job.id):
        if event.detail.get("block") is not None:
            broker.flush()
            broker.stop()
            flushed = True
            break
    assert flushed
    started = time.monotonic()
    second = scaled.submit(models / "llama", spec())
    assert time.monotonic() - started < 5  # no broker on the request path
    assert scaled.wait(job.id, timeout=180).status == "succeeded"
    check_result(scaled, job.id, tmp_path / "first")
    broker.start()
    assert scaled.wait(second.id, timeout=180).status == "succeeded"
    check_result(scaled, second.id, tmp_path / "second")
    started_events = [e for e in scaled.watch(job.id) if e.type == "job.started"]
    assert len(started_events) == 1
