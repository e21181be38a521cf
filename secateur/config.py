"""Where the server is and which key opens it: arguments, environment, then the local service's own file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import ConfigurationError, Usage

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8571
CREDENTIALS = "credentials.json"


@dataclass(frozen=True)
class Credentials:
    """A server and a key for it."""

    url: str
    api_key: str


def data_dir() -> Path:
    """Return the folder of the local service."""
    given = os.environ.get("SECATEUR_DATA_DIR")
    folder = Path(given).expanduser() if given else Path.home() / ".local" / "share" / "secateur"
    return folder.absolute()


def served_folders() -> tuple[tuple[Path, ...], Path | None]:
    """Return the model roots and the folder of tasks that the environment names for a service."""
    roots = os.environ.get("SECATEUR_MODEL_ROOTS", "").split(os.pathsep)
    tasks = os.environ.get("SECATEUR_TASKS_DIR")
    folders = tuple(Path(root).expanduser().absolute() for root in roots if root)
    return folders, Path(tasks).expanduser().absolute() if tasks else None


def find_credentials(url: str | None = None, api_key: str | None = None) -> Credentials:
    """Return what was given, completed from `SECATEUR_URL`, `SECATEUR_API_KEY` and the local service.

    Raises:
        ConfigurationError: a part is known nowhere.
    """
    url = url or os.environ.get("SECATEUR_URL") or None
    api_key = api_key or os.environ.get("SECATEUR_API_KEY") or None
    if url is None or api_key is None:
        local = read_credentials(data_dir())
        # A local key is offered to the local server alone.
        if local is not None and url in (None, local.url):
            url, api_key = local.url, api_key or local.api_key
    if url is None:
        raise ConfigurationError(
            "no server is known",
            code="NO_SERVER",
            suggestions=(
                "run `secateur serve`",
                "set SECATEUR_DATA_DIR where it was started with --data-dir",
                "set SECATEUR_URL and SECATEUR_API_KEY",
            ),
        )
    if not url.startswith(("http://", "https://")):
        raise Usage(
            f"SECATEUR_URL: {url!r} is no address of a server",
            code="BAD_URL",
            suggestions=(f"did you mean http://{url}?",) if "://" not in url else (),
        )
    if api_key is None:
        raise ConfigurationError(
            f"no API key for {url} is known", code="NO_KEY", suggestions=("set SECATEUR_API_KEY",)
        )
    return Credentials(url, api_key.strip())


def read_credentials(folder: Path) -> Credentials | None:
    """Return what the local service left in its folder."""
    try:
        stored = json.loads((folder / CREDENTIALS).read_text(encoding="utf-8"))
        return Credentials(str(stored["url"]), str(stored["api_key"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"{folder / CREDENTIALS} cannot be read: {error}", code="CREDENTIALS_UNREADABLE"
        ) from error


def write_credentials(folder: Path, credentials: Credentials) -> Path:
    """Keep the key for this user's eyes only; a reader never sees half a file."""
    path = folder / CREDENTIALS
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({"url": credentials.url, "api_key": credentials.api_key}, file)
    temporary.replace(path)
    return path


def child_environment(settings: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with the service's settings laid over it."""
    return {**os.environ, **settings}
