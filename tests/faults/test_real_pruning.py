"""The real pruner on a tiny model: killed, fenced, cancelled and drained, on both databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pruning_core.pipeline import phases
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report
from tests import servers, tiny
from tests.worker.rig import Rig, alive, until

BLOCKS = 5
Unbroken = Callable[[dict[str, Any]], Report]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model whose blocks take about a second each."""
    folder = tmp_path_factory.mktemp("models")
    tiny.save(folder / "llama", "llama", num_hidden_layers=BLOCKS, hidden_size=64)
    return folder


@pytest.fixture
def spec(models: Path) -> dict[str, Any]:
    calibration = {"tasks": [{"name": "python_docs", "samples": 64}], "seq_len": 256}
    evaluation = {"windows": 1, "seq_len": 32}
    return {
        "model": {"ref": f"file://{models}/llama", "revision": None},
        "prune": {
            "method": {"name": "wanda"},
            "sparsity": 0.5,
            "pattern": {"name": "row"},
            "calibration": calibration,
            "evaluation": evaluation,
        },
    }


@pytest.fixture
def unbroken(
    models: Path, tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> Unbroken:
    """Prunes as a job does, in this process and in one go."""

    def pruned(spec: dict[str, Any]) -> Report:
        monkeypatch.setattr(sys, "executable", python)
        wanted = PruneSpec.model_validate(spec["prune"])
        return phases.prune(models / "llama", wanted, tmp_path / "unbroken")

    return pruned


def kill(process: subprocess.Popen[bytes], child: int) -> None:
    for pid in (process.pid, child):
        os.kill(pid, signal.SIGKILL)


def assert_same_files(report: dict[str, Any], unbroken: Report) -> None:
    """Compare what was made, but for the model card, which names job and date."""
    expected = [entry.model_dump() for entry in unbroken.files]
    assert without_card(report["files"]) == without_card(expected)


def without_card(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [file for file in files if file["path"] != "README.md"]


def test_killed_twice_equals_unbroken(
    rig: Rig, models: Path, spec: dict[str, Any], unbroken: Unbroken
) -> None:
    rig.configure(model_roots=(models,), max_crashes=5)
    job_id = rig.submit(spec)
    first = rig.worker()
    rig.wait_block(job_id, 0)
    kill(first, rig.child_pid(first))
    second = rig.worker()
    rig.wait_block(job_id, 2)
    os.kill(rig.child_pid(second), signal.SIGKILL)
    job = rig.wait(job_id, "succeeded", seconds=150)
    rig.assert_one_result(job_id)
    assert job.crash_count == 2
    assert max(Counter(rig.told(job_id)).values()) == 1
    assert job.report is not None
    assert job.report["resumed_blocks"] >= 3
    assert_same_files(job.report, unbroken(spec))


def test_units_killed_and_fine_tuned_equal_unbroken(
    postgres_rig: Rig, models: Path, spec: dict[str, Any], unbroken: Unbroken
) -> None:
    rig = postgres_rig
    rig.configure(model_roots=(models,), max_crashes=5)
    spec["prune"] |= {
        "method": {"name": "flap"},
        "sparsity": 0.3,
        "pattern": {"name": "units"},
        "refinement": [{"name": "refit", "target": "dense"}],
        "recovery": {"steps": 6, "batch": 2, "seq_len": 64},
    }
    job_id = rig.submit(spec)
    first = rig.worker()
    rig.wait_block(job_id, 1)
    kill(first, rig.child_pid(first))
    rig.worker()
    job = rig.wait(job_id, "succeeded", seconds=200)
    rig.assert_one_result(job_id)
    assert job.report is not None
    assert job.report["resumed_blocks"] >= 2
    assert_same_files(job.report, unbroken(spec))


def test_a_stopped_worker_with_its_child_is_fenced(
    postgres_rig: Rig, models: Path, spec: dict[str, Any], redis_server: servers.RedisServer
) -> None:
    rig = postgres_rig
    rig.configure(model_roots=(models,), broker_url=redis_server.url)
    job_id = rig.submit(spec)
    zombie = rig.worker()
    rig.wait_block(job_id, 1)
    child = rig.child_pid(zombie)
    for pid in (zombie.pid, child):
        os.kill(pid, signal.SIGSTOP)
    rig.reconciler()
    rig.worker()
    until(lambda: rig.job(job_id).epoch == 2, seconds=20)
    for pid in (child, zombie.pid):
        os.kill(pid, signal.SIGCONT)
    until(lambda: not alive(child), seconds=5)
    redis_server.stop()
    rig.wait(job_id, "succeeded", seconds=100)
    rig.assert_one_result(job_id)
    assert max(Counter(rig.told(job_id)).values()) <= 2
    assert rig.job(job_id).epoch == 2


def test_drain_then_cancel(rig: Rig, models: Path, spec: dict[str, Any]) -> None:
    rig.configure(model_roots=(models,))
    job_id = rig.submit(spec)
    first = rig.worker()
    rig.wait_block(job_id, 0)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=30) == 0
    job = rig.job(job_id)
    assert (job.status, job.attempt, job.crash_count) == ("queued", 0, 0)
    done = set(rig.told(job_id))
    second = rig.worker()
    child = rig.child_pid(second)
    rig.wait_block(job_id, max(done) + 1)
    rig.cancel(job_id)
    rig.wait(job_id, "cancelled", seconds=5)
    assert not alive(child)
    assert max(Counter(rig.told(job_id)).values()) == 1
    rig.assert_nothing_left(job_id)


def test_a_user_error_found_late_is_not_tried_again(
    rig: Rig, models: Path, spec: dict[str, Any]
) -> None:
    rig.configure(model_roots=(models,))
    spec["model"]["ref"] = f"file://{models}/gone"
    job_id = rig.submit(spec)
    rig.worker()
    job = rig.wait(job_id, "failed", seconds=60)
    assert job.error is not None
    assert (job.error["code"], job.error["class"]) == ("MODEL_NOT_FOUND", "user")
    assert job.attempt == 1
    rig.assert_nothing_left(job_id)
