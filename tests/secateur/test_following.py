"""What is seen of a job on its way: at a terminal of any width, and without one."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from secateur import Client, following, render
from secateur.config import child_environment
from secateur.models import Job
from tests.api.jobs import Service
from tests.secateur.conftest import Run

SUBMIT = ("submit", "--model", "hf://org/model", "--method", "wanda", "--sparsity", "0.5")
NAME = "a name of more words than a terminal of eighty columns has room for beside the rest"


@pytest.fixture
def job(client: Client) -> Job:
    return client.submit("hf://org/model", {"method": "wanda", "sparsity": 0.5}, name=NAME)


def at_terminal(width: int, environment: dict[str, str], *arguments: str) -> str:
    """Run the command line at a terminal of so many columns; return what it shows."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "secateur.cli", *arguments],
        env=child_environment({"TERM": "xterm", "COLUMNS": "", **environment}),
        stdin=follower,
        stdout=follower,
        stderr=subprocess.STDOUT,
    )
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 65536):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(leader)
    assert process.wait(30) == 0, shown.decode()
    return shown.decode()


@pytest.mark.parametrize("width", [80, 120, 250])
def test_a_terminal_cuts_no_id_and_folds_the_rest(
    url: str, service: Service, client: Client, job: Job, tmp_path: Path, width: int
) -> None:
    (tmp_path / "a long name of a file.jsonl").write_text('{"text": "one"}\n' * 3)
    file = client.upload(tmp_path / "a long name of a file.jsonl")
    service.succeed(service.claim())
    environment = {"SECATEUR_URL": url, "SECATEUR_API_KEY": service.secret}
    listed = at_terminal(width, environment, "list")
    assert job.id in listed
    assert "…" not in listed
    for word in (*NAME.split(), "wanda,", "hf://org/model", "succeeded"):
        assert word in listed
    assert file.task in at_terminal(width, environment, "files", "list")
    assert job.id in at_terminal(width, environment, "show", job.id[:-1])


def test_a_table_folds_all_but_ids(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render.out, "width", 60)
    with render.out.capture() as captured:
        render.rows(("preset", "job", "found"), [("a" * 40, job.id, "b " * 40)], ids=("job",))
    assert job.id in captured.get()
    assert (captured.get().count("a"), captured.get().count("b")) == (40, 42)
    assert "…" not in captured.get()


def test_without_a_terminal_a_row_is_a_line(run: Run, job: Job) -> None:
    (line,) = [line for line in run("list").stdout.splitlines() if job.id in line]
    assert NAME in line
    assert "wanda, 50 % per row" in line


def test_the_list_has_name_amount_and_quality(run: Run, service: Service, job: Job) -> None:
    quality = {
        "python_docs": {"ppl_dense": 17.1, "ppl_pruned": 28.94},
        "arc": {"acc_dense": 0.5, "acc_pruned": 0.413},
    }
    service.succeed(service.claim())
    with service.database.write() as session:
        text = json.dumps({"quality": quality})
        session.connection().exec_driver_sql("UPDATE jobs SET result = ?", (text,))
    (line,) = [line for line in run("list").stdout.splitlines() if job.id in line]
    assert "python_docs ppl 17.1 to 28.94; arc acc 50 % to 41.3 %" in line


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.42, 1.7, "0.42 to 1.7 minutes"),
        (9.0, 36.0, "9 to 36 minutes"),
        (210.5, 842, "3.5 to 14 hours"),
    ],
)
def test_what_was_decided_and_expected_is_said(
    job: Job, low: float, high: float, told: str
) -> None:
    estimate = {"minutes": {"low": low, "high": high}, "basis": "so and so"}
    notes = ("8 windows of each task (`calibration.samples`)",)
    shown = job.model_copy(update={"notes": notes, "estimate": estimate})
    assert list(render.notes(shown)) == [
        "8 windows of each task (--samples)",
        f"expected to take {told}: so and so",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_silent_job_has_a_line_every_so_often(
    client: Client, job: Job, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    """Nothing comes from the server, which may be away: the line comes all the same."""
    assert following.QUIET_SECONDS < 30
    monkeypatch.setattr(following, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(following, "TICK_SECONDS", 0.1)
    silence = threading.Event()

    def states() -> Iterator[Job]:
        yield job
        silence.wait(1.8)
        yield client.cancel(job.id)

    shown = io.StringIO()
    with redirect_stderr(shown):
        following.follow(states(), as_json=as_json)
    lines = shown.getvalue().splitlines()
    assert 4 <= len(lines) <= 6
    if as_json:
        assert {json.loads(line)["status"] for line in lines} == {"queued", "cancelled"}
    else:
        assert lines[0] == f"{job.id} queued"


def test_a_busy_job_does_not_flood(job: Job) -> None:
    def states() -> Iterator[Job]:
        for step in range(500):
            progress = {"phase": "pruning", "step": step, "total_steps": 500, "percent": step / 5}
            yield Job.model_validate(
                {**job.model_dump(), "status": "running", "progress": progress}
            )

    shown = io.StringIO()
    with redirect_stderr(shown):
        started = time.monotonic()
        following.follow(states())
    assert len(shown.getvalue().splitlines()) <= 2 + (time.monotonic() - started)
    assert shown.getvalue().startswith(f"{job.id} pruning, 0 %, block 0/500")
