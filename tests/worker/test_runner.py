"""The real child, started as the supervisor starts it: what it says, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pruning_core.spec.report import Report
from tests import tiny
from tests.worker.rig import REPOSITORY, alive, until
from worker.protocol import Failed, Progressed, Resolved, Succeeded, decode

Start = Callable[[Path, dict[str, Any]], "subprocess.Popen[bytes]"]
EARLIER = {"seconds_before": 7.0, "earlier_seconds": 100.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, and one whose tokenizer makes its library panic."""
    folder = tmp_path_factory.mktemp("models")
    tiny.save(folder / "llama", "llama")
    panics = tiny.save(folder / "panics", "llama") / "tokenizer.json"
    normalizer = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    panics.write_text(json.dumps(json.loads(panics.read_text()) | {"normalizer": normalizer}))
    return folder


def attempt_on(models: Path, cache: Path) -> dict[str, Any]:
    return {
        "job_id": "job_1",
        "epoch": 1,
        "job_name": "nightly",
        "parent": os.getpid(),
        "model": {"ref": f"file://{models}/llama"},
        "prune": {
            "method": "wanda",
            "sparsity": 0.5,
            "calibration": {"tasks": [{"name": "python_docs", "samples": 4}], "seq_len": 32},
            "evaluation": {"windows": 1, "seq_len": 32},
        },
        "model_roots": [str(models)],
        "cache_dir": str(cache),
        "tasks_dir": None,
    }


@pytest.fixture
def attempt(models: Path, tmp_path: Path) -> dict[str, Any]:
    return attempt_on(models, tmp_path / "cache")


@pytest.fixture(scope="module")
def start(runner: list[str]) -> Start:
    """Starts a child in a folder, as the supervisor does."""

    def started(folder: Path, attempt: dict[str, Any]) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        (folder / "attempt.json").write_text(json.dumps(attempt))
        with (folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [*runner, "job_1", "1", str(folder)],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    return started


def finish(process: subprocess.Popen[bytes]) -> tuple[int, list[Any]]:
    output, _ = process.communicate(timeout=120)
    return process.returncode, [decode(line) for line in output.splitlines()]


@dataclass(frozen=True)
class Finished:
    """A child that succeeded: its folder, what it was told and said, and the seconds until its last word."""

    folder: Path
    attempt: dict[str, Any]
    messages: list[Any]
    seconds: float

    @property
    def report(self) -> Report:
        last = self.messages[-1]
        assert isinstance(last, Succeeded)
        return last.report


def finished(start: Start, folder: Path, attempt: dict[str, Any]) -> Finished:
    begun = time.monotonic()
    process = start(folder, attempt)
    assert process.stdout is not None
    with process.stdout as output:
        lines = [*output]  # the last one is the report
    seconds = time.monotonic() - begun
    assert process.wait() == 0, (folder / "log.txt").read_text()
    return Finished(folder, attempt, [decode(line) for line in lines], seconds)


@pytest.fixture(scope="module")
def succeeded(start: Start, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An attempt that begins in the folder of another run."""
    root = tmp_path_factory.mktemp("succeeded")
    folder = root / "e1"
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "ledger.json").write_text('{"fingerprint": "sha256:0", "blocks": []}')
    return finished(start, folder, attempt_on(models, root / "cache") | EARLIER)


def test_success(succeeded: Finished) -> None:
    messages, report = succeeded.messages, succeeded.report
    assert None not in messages
    assert messages[0].progress.phase == "resolving"
    (resolved,) = [m for m in messages if isinstance(m, Resolved)]
    assert resolved.resolved["seed"] == 42
    blocks = [m.progress.block for m in messages if isinstance(m, Progressed)]
    assert [block.block for block in blocks if block] == list(range(tiny.BLOCKS))
    assert (report.origin.model, report.origin.job_id, report.origin.job_name) == (
        succeeded.attempt["model"]["ref"],
        "job_1",
        "nightly",
    )
    assert {entry.path: entry.sha256 for entry in report.files} == {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in (succeeded.folder / "checkpoint").iterdir()
    }


def test_work_of_another_run_is_thrown_away(succeeded: Finished) -> None:
    assert succeeded.report.resumed_blocks == 0
    assert "resume.impossible" in (succeeded.folder / "log.txt").read_text()


def test_phases_sum_to_the_time_that_the_process_took(succeeded: Finished) -> None:
    assert_sums(succeeded)


def test_phases_of_a_fine_tuned_run_sum_to_the_time_that_its_process_took(
    start: Start, attempt: dict[str, Any], tmp_path: Path
) -> None:
    attempt["prune"]["recovery"] = {"steps": 2, "seq_len": 32, "batch": 2}
    assert_sums(finished(start, tmp_path / "e1", attempt | EARLIER))


def assert_sums(run: Finished) -> None:
    report = run.report
    phases = report.timing.phases
    assert {"resolving", "preparing", "pruning", "saving", "verifying", "reporting"} <= set(phases)
    assert phases["earlier_attempts"] == 100.0
    assert phases["resolving"] > 7.0
    assert abs(sum(phases.values()) - 107.0 - run.seconds) < max(0.5, 0.02 * run.seconds)
    spent = (report.finished_at - report.started_at).total_seconds()
    assert abs(spent - sum(phases.values())) < 0.1


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model": {"ref": "file:///etc"}}, "MODEL_NOT_ALLOWED", "outside"),
        ({"model_roots": []}, "MODEL_NOT_ALLOWED", "SECATEUR_MODEL_ROOTS"),
        ({"model": {"ref": "file://{models}/none"}}, "MODEL_NOT_FOUND", "none"),
        ({"model": {"ref": "file://{models}/panics"}}, "MODEL_INVALID", "charsmap"),
        (
            {"model": {"ref": "hf://org/name"}, "hub_patience_seconds": 1},
            "HUB_UNAVAILABLE",
            "It was tried for 1 s",
        ),
        ({"prune": {"method": "nonsense"}}, "INTERNAL", "unexpected"),
    ],
)
def test_an_error_has_a_code_and_no_trace(
    start: Start,
    attempt: dict[str, Any],
    models: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    code: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    changes = json.loads(json.dumps(changes).replace("{models}", str(models)))
    status, messages = finish(start(tmp_path / "e1", attempt | changes))
    assert status == 1
    assert isinstance(messages[-1], Failed)
    assert messages[-1].error["code"] == code
    assert words in messages[-1].error["detail"]
    assert "Traceback" not in str(messages[-1].error)
    assert "Traceback" in (tmp_path / "e1" / "log.txt").read_text()


def test_sigterm_stops_it_resumably(start: Start, attempt: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "e1"
    attempt["prune"]["calibration"] = {
        "tasks": [{"name": "python_docs", "samples": 64}],
        "seq_len": 256,
    }
    process = start(folder, attempt)
    until(lambda: (folder / "work" / "ledger.json").exists(), seconds=60)
    process.send_signal(signal.SIGTERM)
    status, messages = finish(process)
    assert status == 75, (folder / "log.txt").read_text()
    done = json.loads((folder / "work" / "ledger.json").read_text())["blocks"]
    assert 1 <= len(done) <= 2
    assert not any(isinstance(message, Failed | Succeeded) for message in messages)


def test_an_orphan_dies_at_once(start: Start, attempt: dict[str, Any], tmp_path: Path) -> None:
    process = start(tmp_path / "e1", attempt | {"parent": 1})
    assert process.stdout is not None
    started = time.monotonic()
    assert process.wait(timeout=30) == -signal.SIGKILL
    process.stdout.close()
    assert not alive(process.pid)
    assert time.monotonic() - started < 20
