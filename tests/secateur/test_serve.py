"""`secateur serve`: from nothing to a service, again over the same folder, and down without a trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from secateur import Client
from secateur.config import child_environment, read_credentials
from tests.servers import free_port


def command(folder: Path, port: int, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "secateur.cli", "serve", "--data-dir", str(folder),
        "--port", str(port), *more,
    ]  # fmt: skip


@contextmanager
def serving(folder: Path, port: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(folder, port, *more),
        cwd=folder.parent,
        env=child_environment({"SECATEUR_DATABASE_URL": "", "SECATEUR_BROKER_URL": ""}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def lines_until_ready(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if "Ctrl-C" in line:
            return lines
    raise AssertionError("\n".join(lines))


def children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def await_dead(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder with spaces"


def test_fresh_folder_then_the_same_again(folder: Path) -> None:
    port = free_port()
    (folder.parent / "api").mkdir()
    (folder.parent / "api" / "__init__.py").write_text("raise SystemExit('not this one')")
    with serving(folder, port) as process:
        lines = lines_until_ready(process)
        credentials = read_credentials(folder)
        assert credentials is not None
        assert credentials.api_key in lines
        assert credentials.url == f"http://127.0.0.1:{port}"
        with Client(credentials.url, credentials.api_key) as client:
            job = client.submit("hf://org/model", {"method": "magnitude", "sparsity": 0.5})
            client.cancel(job.id)
        pids = children(process.pid)
        assert len(pids) == 2
        process.terminate()
        assert process.wait(60) == 0
        await_dead(pids)
    other = free_port()
    with serving(folder, other) as process:
        lines = lines_until_ready(process)
        assert not any("pk_live" in line for line in lines)
        credentials = read_credentials(folder)
        assert credentials is not None
        with Client(credentials.url, credentials.api_key) as client:
            assert [found.id for found in client.jobs()] == [job.id]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.parametrize("name", ["api", "worker"])
def test_both_stop_when_one_dies(folder: Path, name: str) -> None:
    with serving(folder, free_port()) as process:
        lines_until_ready(process)
        pids = dict(zip(("api", "worker"), sorted(children(process.pid)), strict=True))
        os.kill(pids[name], signal.SIGKILL)
        assert process.wait(60) == 1
        assert process.stdout is not None
        assert f"SERVICE_FAILED {name} ended" in process.stdout.read()
        await_dead(list(pids.values()))


def test_taken_port_is_said_and_nothing_is_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = subprocess.run(command(folder, port), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("PORT_TAKEN")


def test_lost_database_gets_a_new_key(folder: Path) -> None:
    with serving(folder, free_port()) as process:
        lines_until_ready(process)
    before = read_credentials(folder)
    for path in folder.glob("secateur.db*"):
        path.unlink()
    with serving(folder, free_port()) as process:
        lines = lines_until_ready(process)
    after = read_credentials(folder)
    assert before is not None
    assert after is not None
    assert before.api_key != after.api_key
    assert after.api_key in lines
