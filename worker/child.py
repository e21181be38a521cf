"""The child process of one attempt: its own process group, a scrubbed environment, no survivor."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

POLL_SECONDS = 0.05
_PASSED_ON = {
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
}
_PASSED_ON_PREFIXES = ("LC_", "HF_", "TRANSFORMERS_", "CUDA_", "NVIDIA_", "OMP_", "MKL_")


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep what a numerical process needs; no database, broker or service setting passes."""
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


class Child:
    """A running child; leaving the context kills whatever is left of its group."""

    def __init__(self, command: Sequence[str], *, log: Path, tasks_dir: Path | None) -> None:
        environment = scrubbed(os.environ)  # noqa: TID251 - the allow-list is the point
        if tasks_dir is not None:
            environment["SECATEUR_TASKS_DIR"] = str(tasks_dir)
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def stdout(self) -> IO[bytes]:
        """The child's end of the conversation."""
        assert self._process.stdout is not None
        return self._process.stdout

    def exited(self, *, within: float) -> bool:
        """Tell whether the child has ended; it stays a zombie, so that its group id is not reused."""
        deadline = time.monotonic() + within
        while not self._ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def terminate(self) -> None:
        """Ask the child, not its helpers, to stop."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Kill what is left, wait for the end and return the exit status, negative for a signal."""
        if self._process.returncode is None:
            self.kill()
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reap()
        self.stdout.close()
