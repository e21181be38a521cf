"""A whole service of real processes, driven through the client as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from secateur import Client
from store.settings import Settings
from tests.servers import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 60


@contextmanager
def serving(
    folder: Path, database_url: str, *, models: Path, broker_url: str | None = None
) -> Iterator[Client]:
    """Run the front end and a worker (and, with a broker, a reconciler) over a migrated database; yield a client."""
    settings = Settings(
        data_dir=folder,
        database_url=database_url,
        broker_url=broker_url,
        model_roots=(models,),
        port=free_port(),
        # with a broker the poll is made so slow that only a doorbell or the reconciler explains a quick start
        poll_seconds=600 if broker_url else 0.5,
        reconcile_seconds=1,
        heartbeat_seconds=1,
        lease_seconds=20,
    )
    secret = json.loads(_run(settings, "store", "create-key", "--name", "e2e", "--json"))["secret"]
    modules = ["api", "worker", *(["worker.reconcile"] if broker_url else [])]
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(_process(settings, folder, module))
        client = stack.enter_context(Client(f"http://127.0.0.1:{settings.port}", secret))
        _await_ready(client)
        yield client


def _await_ready(client: Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.methods()
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            return


def _environment(settings: Settings) -> dict[str, str]:
    values = settings.model_dump(mode="json", exclude_none=True)
    values["model_roots"] = os.pathsep.join(values["model_roots"])
    return {f"SECATEUR_{name.upper()}": str(value) for name, value in values.items()}


def _command(settings: Settings, module: str, *arguments: str) -> list[str]:
    pairs = [f"{name}={value}" for name, value in _environment(settings).items()]
    return ["env", *pairs, sys.executable, "-m", module, *arguments]


def _run(settings: Settings, module: str, *arguments: str) -> str:
    command = _command(settings, module, *arguments)
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout


@contextmanager
def _process(settings: Settings, folder: Path, module: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{module}.log").open("wb") as log:
        process = subprocess.Popen(
            _command(settings, module), cwd=REPOSITORY, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)
