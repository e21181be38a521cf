"""Runs one of our modules in a fresh process, and tells its own faults from what its machine did to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

from pruning_core.errors import DiskFull, GpuOutOfMemory, HostOutOfMemory

LOOK_SECONDS = 5.0


class HelperFailed(Exception):
    """The module ended with an error of its own; the text is its last line."""


def run(module: str, *arguments: str, alive: Callable[[], None] = lambda: None) -> str:
    """Return what `python -m module` prints; call `alive` every few seconds meanwhile.

    Whatever `alive` raises ends the process.

    Raises:
        HelperFailed: the module failed.
        HostOutOfMemory, GpuOutOfMemory, DiskFull: the machine did not let it.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while True:
            try:
                output, errors = process.communicate(timeout=LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                try:
                    alive()
                except BaseException:
                    process.kill()
                    raise
    if process.returncode == 0:
        return output
    if "OutOfMemoryError" in errors:
        raise GpuOutOfMemory(f"{module} needs the whole model in the accelerator's memory.")
    if (
        process.returncode == -signal.SIGKILL
        or "can't allocate memory" in errors
        or "MemoryError" in errors
    ):
        raise HostOutOfMemory(
            f"{module} needs the whole model in memory and was ended with status {process.returncode}."
        )
    if "(os error 28)" in errors or "No space left on device" in errors:
        raise DiskFull(f"{module} found the disk full: free space and submit again.")
    raise HelperFailed(_last_words(process.returncode, errors))


def _last_words(status: int, errors: str) -> str:
    said = (errors.strip().splitlines() or ["no message"])[-1]
    return f"ended by {signal.Signals(-status).name}: {said}" if status < 0 else said
