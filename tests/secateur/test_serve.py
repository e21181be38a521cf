"""`secateur serve`: from nothing to a service, again over the same folder, and down without a trace."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from secateur import Client, ConfigurationError, before_serving, serve
from secateur.config import (
    Credentials,
    child_environment,
    read_credentials,
    write_credentials,
)
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
            job = client.submit("hf://org/model-1B", {"method": "wanda", "sparsity": 0.5})
            assert job.estimate is not None  # the machine was measured
            assert job.estimate["minutes"]["low"] > 0
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


def refused(folder: Path, port: int, *more: str, **environment: str) -> tuple[int, str]:
    """Run `serve`, which must end at once; return its exit status and what it says."""
    done = subprocess.run(
        command(folder, port, *more),
        env=child_environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == ""
    assert not (folder / "secateur.db").exists()
    return done.returncode, done.stderr


def test_taken_port_is_said_and_nothing_is_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        code, said = refused(folder, port)
    assert code == 1
    assert said.startswith(f"PORT_TAKEN port {port} of 127.0.0.1 is in use")


def test_port_and_host_of_the_environment_count(folder: Path) -> None:
    with socket.create_server(("127.0.0.2", 0)) as holder:
        port = holder.getsockname()[1]
        environment = {"SECATEUR_PORT": str(port), "SECATEUR_HOST": "127.0.0.2"}
        done = subprocess.run(
            [one for one in command(folder, port) if one not in ("--port", str(port))],
            env=child_environment(environment),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stderr.startswith(f"PORT_TAKEN port {port} of 127.0.0.2 is in use")


@pytest.mark.parametrize(
    ("port", "host", "said"),
    [(0, "192.0.2.1", "HOST_NOT_OURS"), (0, "no.such.host.invalid", "HOST_NOT_OURS")],
)
def test_an_address_that_cannot_be_had(port: int, host: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        before_serving.free_port(host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_free_port_is_found(host: str) -> None:
    assert before_serving.free_port(host, 0) > 0


def test_a_model_root_that_is_not_there_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for more, environment in (
        (("--model-root", str(tmp_path / "none")), {}),
        (("--model-root", str(tmp_path), "--model-root", str(tmp_path / "file")), {}),
        ((), {"SECATEUR_MODEL_ROOTS": f"{tmp_path}:{tmp_path / 'none'}"}),
        (("--tasks-dir", str(tmp_path / "none")), {}),
    ):
        code, said = refused(folder, 0, *more, **environment)
        assert code == 2
        assert said.startswith("NO_SUCH_FOLDER --")
        assert "none" in said or "file" in said


def test_a_client_alone_is_told_which_extra_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "torch" else found(name)
    )
    options = serve.Options(data_dir=folder, port=0, host="127.0.0.1")
    with pytest.raises(
        ConfigurationError, match=r"lacks the extra `worker` \(not installed: torch"
    ):
        serve.run(options)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="lacks the extras `api` and `worker`") as caught:
        serve.run(options)
    assert caught.value.code == "MISSING_EXTRA"
    assert not folder.exists()


def test_what_an_extra_is_told_by_belongs_to_it() -> None:
    """None of the modules comes with the client alone, and each is installed here."""
    client = {"pydantic", "httpx2", "typer", "rich"}
    for modules in before_serving.NEEDED.values():
        assert client.isdisjoint(modules)
        assert all(importlib.util.find_spec(name) for name in modules)


def test_a_second_service_over_the_same_folder_is_refused(folder: Path) -> None:
    with serving(folder, free_port()) as process:
        lines_until_ready(process)
        before = (folder / "credentials.json").read_bytes()
        done = subprocess.run(command(folder, 0), capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.startswith("DATA_DIR_IN_USE")
        assert f"by process {process.pid}" in done.stderr
        assert (folder / "credentials.json").read_bytes() == before
        assert process.poll() is None
    with before_serving.locked(folder):  # it has let go
        pass


def test_a_front_end_in_trouble_costs_no_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only a key that is not known is replaced."""
    write_credentials(tmp_path, Credentials("http://127.0.0.1:1", "kept"))
    answers = iter([503, 500, 200])
    monkeypatch.setattr("httpx2.get", lambda *_, **__: httpx2.Response(next(answers)))
    for _ in range(2):
        with pytest.raises(serve.ServiceFailed):
            serve._ensure_key("http://127.0.0.1:2", tmp_path, {})
    assert read_credentials(tmp_path) == Credentials("http://127.0.0.1:1", "kept")
    serve._ensure_key("http://127.0.0.1:2", tmp_path, {})
    assert read_credentials(tmp_path) == Credentials("http://127.0.0.1:2", "kept")


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
