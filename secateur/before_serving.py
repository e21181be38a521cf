"""What must hold before `secateur serve` starts a process: the install, the folders, the port, the lock."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from secateur.errors import ConfigurationError, Usage

LOCK = "serve.lock"
NEEDED = {
    "api": ("sqlalchemy", "alembic", "pydantic_settings", "fastapi", "uvicorn", "multipart"),
    "worker": ("torch", "transformers", "safetensors", "gguf", "pyarrow", "scipy"),
}
"""Modules that tell whether an extra is installed."""


def check_install() -> None:
    """Refuse where only the client is installed.

    Raises:
        ConfigurationError: names the extras that are missing.
    """
    missing = {
        extra: [name for name in modules if importlib.util.find_spec(name) is None]
        for extra, modules in NEEDED.items()
    }
    extras = [extra for extra, modules in missing.items() if modules]
    if not extras:
        return
    absent = ", ".join(module for extra in extras for module in missing[extra])
    named = " and ".join(f"`{extra}`" for extra in extras)
    raise ConfigurationError(
        f"to serve, this install lacks the extra{'s' if len(extras) > 1 else ''} {named} "
        f"(not installed: {absent})",
        code="MISSING_EXTRA",
        suggestions=('python -m pip install -c constraints.txt ".[api,worker]"',),
    )


def check_folders(roots: Sequence[Path], tasks_dir: Path | None) -> None:
    """Refuse folders that are not there.

    Raises:
        Usage: names the first.
    """
    tasks = [("--tasks-dir", tasks_dir)] if tasks_dir else []
    for option, folder in [*(("--model-root", root) for root in roots), *tasks]:
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "no such folder"
            raise Usage(f"{option}: {what}: {folder}", code="NO_SUCH_FOLDER")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a data folder for this process alone; the kernel lets go however the process ends.

    Raises:
        ConfigurationError: another process serves it.
    """
    import fcntl  # not on Windows, where the client runs all the same

    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _refuse(folder, os.read(descriptor, 20).decode(errors="replace").strip())
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        os.close(descriptor)


def _refuse(folder: Path, holder: str) -> NoReturn:
    raise ConfigurationError(
        f"{folder} is served already, by process {holder or 'unknown'}",
        code="DATA_DIR_IN_USE",
        suggestions=("use that service", "choose another folder with --data-dir"),
    )


def free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0.

    Raises:
        ConfigurationError: the port cannot be had, or the host is not this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise _no_host(host, error) from error
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except PermissionError as error:
            raise ConfigurationError(
                f"port {port} needs rights that this user has not",
                code="PORT_NOT_ALLOWED",
                suggestions=("choose one from 1024 on with --port or SECATEUR_PORT",),
            ) from error
        except OSError as error:
            raise _taken(host, port, error) from error
        return int(probe.getsockname()[1])


def _taken(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno != errno.EADDRINUSE:
        return _no_host(host, error)
    return ConfigurationError(
        f"port {port} of {host} is in use by another program",
        code="PORT_TAKEN",
        suggestions=(
            "is the service running already?",
            "choose another with --port or SECATEUR_PORT; 0 takes a free one",
        ),
    )


def _no_host(host: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot listen at {host}: {error.strerror}",
        code="HOST_NOT_OURS",
        suggestions=("--host or SECATEUR_HOST names an address of this machine",),
    )
