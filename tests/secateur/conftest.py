from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import httpx2
import pytest

from secateur import Client
from secateur.cli import main
from secateur.config import child_environment
from store.session import Database
from store.tables import Base
from tests.api.jobs import Service
from tests.secateur.proxy import Proxy
from tests.servers import free_port

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def running(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A real `python -m api` and its data folder; one for all tests, each begins with empty tables."""
    folder = tmp_path_factory.mktemp("data dir")
    shutil.copyfile(sqlite_template, folder / "secateur.db")
    port = free_port()
    environment = child_environment(
        {"SECATEUR_DATA_DIR": str(folder), "SECATEUR_PORT": str(port), "SECATEUR_DATABASE_URL": ""}
    )
    process = subprocess.Popen([sys.executable, "-m", "api"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        await_ready(url, process)
        yield url, folder
    finally:
        process.terminate()
        # uvicorn closes in order, then gives the signal its usual end.
        assert process.wait(20) in (0, -signal.SIGTERM)


@pytest.fixture
def service(running: tuple[str, Path]) -> Iterator[Service]:
    _, folder = running
    database_url = f"sqlite:///{folder}/secateur.db"
    database = Database(database_url)
    with database.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    database.dispose()
    made = Service.over(database_url, folder)
    yield made
    made.database.dispose()


@pytest.fixture
def url(running: tuple[str, Path]) -> str:
    return running[0]


def await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            if httpx2.get(f"{url}/readyz").is_success:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    raise AssertionError("the front end does not become ready")


@pytest.fixture
def client(url: str, service: Service) -> Iterator[Client]:
    with Client(url, service.secret, timeout=10) as made:
        yield made


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    with Proxy(url) as made:
        yield made


@pytest.fixture
def proxied(proxy: Proxy, service: Service) -> Iterator[Client]:
    """A client whose connections go through the proxy."""
    with Client(proxy.url, service.secret, timeout=10) as made:
        yield made


@pytest.fixture
def run(url: str, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, in this process."""
    monkeypatch.setenv("SECATEUR_URL", url)
    monkeypatch.setenv("SECATEUR_API_KEY", service.secret)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["secateur", *arguments])
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), *texts)

    return call
