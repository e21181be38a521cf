"""`secateur serve`: front end and worker as two processes over one data folder, nothing else needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from secateur import before_serving, render
from secateur.config import (
    DEFAULT_HOST,
    Credentials,
    child_environment,
    read_credentials,
    served_folders,
    write_credentials,
)
from secateur.errors import ConfigurationError, SecateurError

START_SECONDS = 60.0
STOP_SECONDS = 60.0
"""A worker ends its current block before it leaves."""
LOG_BYTES = 20_000_000


@dataclass(frozen=True)
class Options:
    """What the command line says; port 0 takes a free one."""

    data_dir: Path
    port: int
    host: str
    model_roots: tuple[Path, ...] = ()
    tasks_dir: Path | None = None


class ServiceFailed(SecateurError):
    """A process of the service ended, or never began."""


def run(options: Options) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status."""
    roots, tasks_dir = served_folders()
    before_serving.check_install()
    before_serving.check_folders(options.model_roots or roots, options.tasks_dir or tasks_dir)
    options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with before_serving.locked(options.data_dir):
        return _serve(options, before_serving.free_port(options.host, options.port))


def _serve(options: Options, port: int) -> int:
    environment = child_environment(_settings(options, port))
    with ThreadPoolExecutor(1) as beside:
        measured = beside.submit(_machine, environment)
        _output(environment, "store", "migrate")
        machine = measured.result()
    environment |= {name: value for name, value in machine.items() if not environment.get(name)}
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _process("api", options.data_dir, environment) as api:
        url = f"http://{_reached_at(options.host)}:{port}"
        _await_ready(url, api, options.data_dir, stop)
        if not stop.is_set():
            _ensure_key(url, options.data_dir, environment)
            with _process("worker", options.data_dir, environment) as worker:
                _banner(url, options, environment)
                _await_end({"api": api, "worker": worker}, options.data_dir, stop)
    return 0


def _machine(environment: dict[str, str]) -> dict[str, str]:
    """Return the settings that say what prunes here, and how fast it is where that was measured."""
    machine = json.loads(_output(environment, "worker.machine"))
    settings = {"SECATEUR_DEVICE": machine["device"], "SECATEUR_FLOPS": machine["flops"]}
    return {name: str(value) for name, value in settings.items() if value is not None}


def _reached_at(host: str) -> str:
    """Return what this machine calls a host in a URL."""
    own = {"0.0.0.0": DEFAULT_HOST, "": DEFAULT_HOST, "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{own}]" if ":" in own else own


def _settings(options: Options, port: int) -> dict[str, str]:
    settings = {
        "SECATEUR_DATA_DIR": str(options.data_dir),
        "SECATEUR_HOST": options.host,
        "SECATEUR_PORT": str(port),
    }
    if options.model_roots:
        roots = [str(path) for path in options.model_roots]
        if any(os.pathsep in root for root in roots):
            raise ConfigurationError(f"a model root contains {os.pathsep!r}", code="BAD_PATH")
        settings["SECATEUR_MODEL_ROOTS"] = os.pathsep.join(roots)
    if options.tasks_dir:
        settings["SECATEUR_TASKS_DIR"] = str(options.tasks_dir)
    return settings


def _output(environment: dict[str, str], module: str, *arguments: str) -> str:
    """Run a module of ours and return what it prints; -P keeps the current folder off the import path."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        told = " ".join((module, *arguments[:1]))
        raise ServiceFailed(f"{told}: {last}", code="SERVICE_FAILED")
    return done.stdout


@contextmanager
def _process(
    name: str, data_dir: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m name` in a session of its own, so that the terminal's Ctrl-C reaches us alone."""
    path = _log_path(data_dir, name)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", name],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end_process(process)


def _end_process(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(
    url: str, api: subprocess.Popen[bytes], data_dir: Path, stop: threading.Event
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not stop.wait(0.1):
        if api.poll() is not None or time.monotonic() > deadline:
            raise _failure("api", data_dir)
        try:
            if httpx2.get(f"{url}/readyz", timeout=5, trust_env=False).is_success:
                return
        except httpx2.TransportError:
            continue


def _ensure_key(url: str, data_dir: Path, environment: dict[str, str]) -> None:
    """Keep the key that works; make one, and show it this once, where there is none or the database knows it not."""
    stored = read_credentials(data_dir)
    if stored is not None and _opens(url, stored.api_key):
        write_credentials(data_dir, Credentials(url, stored.api_key))
        return
    made = json.loads(_output(environment, "store", "create-key", "--name", "local", "--json"))
    path = write_credentials(data_dir, Credentials(url, made["secret"]))
    render.out.print(f"API key, shown once and kept in {path}:", markup=False)
    render.out.print(made["secret"], markup=False)


def _opens(url: str, api_key: str) -> bool:
    headers = {"Authorization": f"Bearer {api_key}"}
    answer = httpx2.get(f"{url}/v1/methods", headers=headers, timeout=30, trust_env=False)
    if not answer.is_success and answer.status_code != httpx2.codes.UNAUTHORIZED:
        raise ServiceFailed(
            f"the front end answers {answer.status_code}; the stored key is left as it is",
            code="SERVICE_FAILED",
        )
    return answer.is_success


def _banner(url: str, options: Options, environment: dict[str, str]) -> None:
    render.out.print(f"Secateur serves at {url}", markup=False)
    if environment["SECATEUR_DEVICE"] == "cpu":
        render.out.print("prunes on the CPU: jobs take less text unless they say how much")
    if not options.model_roots and not served_folders()[0]:
        render.out.print("models: from the hub; --model-root FOLDER opens a folder of this machine")
    render.out.print(f"data and logs: {options.data_dir}; Ctrl-C stops it", markup=False)


def _await_end(
    processes: dict[str, subprocess.Popen[bytes]], data_dir: Path, stop: threading.Event
) -> None:
    while not stop.wait(0.2):
        for name, process in processes.items():
            if process.poll() is not None:
                raise _failure(name, data_dir)


def _failure(name: str, data_dir: Path) -> ServiceFailed:
    path = _log_path(data_dir, name)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return ServiceFailed(
        f"{name} ended; its last words in {path}:\n" + "\n".join(lines), code="SERVICE_FAILED"
    )


def _log_path(data_dir: Path, name: str) -> Path:
    return data_dir / f"{name}.log"
