"""Runs one of our modules in a fresh process, hears how far it is, and tells its own faults from what its machine did to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from queue import Empty, SimpleQueue
from typing import IO, Any

from pruning_core.errors import DiskFull, GpuOutOfMemory, HostOutOfMemory
from pruning_core.system import exhausted

LOOK_SECONDS = 2.0
_MARK = "\x1eprogress "

ProgressCallback = Callable[[int, int, str, float | None], None]
"""Takes how many are done, of how many, of what, and the share of all that the process has to do, where it knows that."""


class HelperFailed(Exception):
    """The module ended with an error of its own; the text is its last line."""


def report_progress(done: int, total: int, unit: str, share: float | None = None) -> None:
    """Tell the process that runs this one how far it is, as `ProgressCallback` takes it."""
    sys.stdout.write(f"\n{_MARK}{json.dumps([done, total, unit, share])}\n")
    sys.stdout.flush()


def report_loading() -> None:
    """Let stock transformers tell how many tensors it has loaded, from here on."""
    from transformers.utils import logging

    def bar(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _counted(args[0]) if args else factory(**kwargs)

    logging.set_tqdm_hook(bar)


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    total = len(items) if isinstance(items, Sized) else 0
    for number, item in enumerate(items, 1):
        yield item
        report_progress(number, total, "tensor")


def run(
    module: str,
    *arguments: str,
    on_progress: ProgressCallback = lambda _done, _total, _unit, _share: None,
    alive: Callable[[], None] = lambda: None,
) -> str:
    """Return what `python -m module` prints, but for what it tells of its progress.

    Args:
        module: Ours.
        arguments: Its own.
        on_progress: Called with what it tells; raising ends the process.
        alive: Called every few seconds while it tells nothing; raising ends the process.

    Raises:
        HelperFailed: the module failed.
        HostOutOfMemory, GpuOutOfMemory, DiskFull: the machine did not let it.
    """
    command = [sys.executable, "-m", module, *arguments]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as process,
    ):
        try:
            output = "".join(_heard(process, on_progress, alive))
        except BaseException:
            process.kill()
            raise
        status = process.wait()
        complaints.seek(0)
        errors = complaints.read()
    if status == 0:
        return output
    raise _failure(module, status, errors)


def _failure(module: str, status: int, errors: str) -> Exception:
    """Return why a module ended: for want of memory or disk, or by a fault of its own."""
    wanting = exhausted.told_in(errors)
    if wanting is GpuOutOfMemory:
        return GpuOutOfMemory(f"{module} needs the whole model in the accelerator's memory.")
    if wanting is HostOutOfMemory or status == -signal.SIGKILL:
        return HostOutOfMemory(
            f"{module} needs the whole model in memory and was ended with status {status}."
        )
    if wanting is DiskFull:
        return DiskFull(f"{module} found the disk full: free space and submit again.")
    return HelperFailed(_last_words(status, errors))


def _last_words(status: int, errors: str) -> str:
    said = (errors.strip().splitlines() or ["no message"])[-1]
    return f"ended by {signal.Signals(-status).name}: {said}" if status < 0 else said


def _heard(
    process: subprocess.Popen[str], on_progress: ProgressCallback, alive: Callable[[], None]
) -> Iterator[str]:
    """Yield the lines of the answer until the process closes its output."""
    assert process.stdout is not None
    lines: SimpleQueue[str | None] = SimpleQueue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=LOOK_SECONDS)
        except Empty:
            alive()
            continue
        if line is None:
            return
        if line.startswith(_MARK):
            on_progress(*json.loads(line.removeprefix(_MARK)))
        else:
            yield line


def _read(output: IO[str], lines: SimpleQueue[str | None]) -> None:
    for line in output:
        lines.put(line)
    lines.put(None)
