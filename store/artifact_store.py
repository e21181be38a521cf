"""Where bytes outlive a process: what every artifact store promises, whatever lies behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Protocol

from store.errors import ArtifactNotFound

OnBytes = Callable[[int], None]
"""Takes the bytes of every piece that was read."""


@dataclass(frozen=True)
class Stored:
    """What is known of the bytes under a key."""

    bytes: int
    modified: datetime


class ArtifactStore(Protocol):
    """Bytes under keys such as `jobs/job_1/e1/model.safetensors`.

    A file appears under its key whole and for good, or not at all. A key that leads elsewhere is none: every method raises
    ArtifactNotFound over it.
    """

    def put(
        self, source: Path, key: str, on_bytes: OnBytes = lambda _bytes: None
    ) -> tuple[int, str]:
        """Store a regular file, in the place of what the key held, and return its size and sha256.

        Raises:
            ArtifactNotFound: The source is no regular file.
        """

    def open(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Return the bytes from `start` to before `stop` (None: to the end), piece by piece.

        Raises:
            ArtifactNotFound: Nothing is under this key; raised over the first piece.
        """

    def fetch(self, key: str, target: Path) -> None:
        """Leave the bytes in a new local file, to be read alone: it may be the stored one.

        Raises:
            ArtifactNotFound: Nothing is under this key.
        """

    def stat(self, key: str) -> Stored | None:
        """Return what is known of a key's bytes; None where there are none."""

    def list(self, prefix: str) -> Iterator[str]:
        """Return the keys below `prefix`, of which `a/b` is no part of `a/bc`, in any order."""

    def delete(self, key: str) -> None:
        """Remove one file; none there is fine."""

    def delete_below(self, prefix: str) -> None:
        """Remove everything below a prefix; nothing there is fine."""

    def presign(self, key: str, *, filename: str, media_type: str) -> str | None:
        """Return a URL that serves the bytes for a while to whoever has it; None where the service sends them itself."""


def parts_of(key: str) -> tuple[str, ...]:
    """Return the steps of a key.

    Raises:
        ArtifactNotFound: It is none: empty, absolute, or leads up.
    """
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "\0" in key:
        raise no_key(key)
    return parts


def no_key(key: str) -> ArtifactNotFound:
    """Return the refusal of what is no key."""
    return ArtifactNotFound(f"{key!r} is no key of the artifact store")
