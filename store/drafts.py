"""Files that are being written: lent empty, gone afterwards, and swept where their process was killed."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from store.private_folders import OWN_FILE, make_folder

YOUNG_SECONDS = 10
"""A younger draft may not be held yet."""


class Drafts:
    """A folder of files without a name; each is held as long as its process lives.

    Args:
        folder: Made when the first draft is lent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def lend(self) -> Iterator[Path]:
        """Lend a new empty file; it is gone afterwards, unless it was moved."""
        with self.place() as path:
            path.touch(mode=OWN_FILE)
            with held(path):
                yield path

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Lend a path at which nothing is yet; to be made there, and then to be `held`."""
        make_folder(self._folder)
        path = self._folder / uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def sweep(self, *, older_than: float = YOUNG_SECONDS) -> None:
        """Remove the drafts of processes that were killed: nothing holds them any more."""
        for path in self._folder.glob("*"):
            with suppress(OSError):  # gone, held, or on a file system without locks
                if time.time() - path.stat().st_ctime >= older_than:
                    with path.open("rb") as file:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()


@contextmanager
def held(draft: Path) -> Iterator[None]:
    """Hold a draft, so that no sweep takes it; a process that dies lets it go."""
    with draft.open("rb") as file:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(file, fcntl.LOCK_SH)
        yield
