"""Watching a job to its end: a bar at a terminal, lines elsewhere."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from secateur import render
from secateur.errors import Interrupted
from secateur.models import Job
from secateur.models import Progress as JobProgress

QUIET_SECONDS = 25.0
"""Without a terminal, at most so long between two lines."""
TICK_SECONDS = 1.0
BUSY_SECONDS = 5.0
"""And at least so long, unless the phase has changed."""


class TimeLeft(ProgressColumn):
    """The server's own estimate, which knows the phases still to come."""

    def render(self, task: Task) -> Text:
        """Return `3:05 left`, or nothing while it is unknown."""
        return Text(_left(task.fields.get("seconds")))


def follow(jobs: Iterable[Job], *, as_json: bool = False) -> Job:
    """Show how a job goes on until it has ended, on stderr; return it as it ended.

    Raises:
        Interrupted: Ctrl-C; the job goes on, and the error says how to go on with it.
    """
    told = _bar() if render.err.is_terminal and not as_json else _lines(_json if as_json else _text)
    job: Job | None = None
    try:
        with told as show:
            for job in jobs:
                show(job)
    except KeyboardInterrupt:
        raise interrupted(job) from None
    assert job is not None
    return job


def interrupted(job: Job | None) -> Interrupted:
    """Return the error of a watch that Ctrl-C has ended."""
    if job is None:
        return Interrupted("stopped", code="INTERRUPTED")
    return Interrupted(
        f"stopped watching; the job goes on: {job.id}",
        code="INTERRUPTED",
        suggestions=(
            f"secateur watch {job.id}   watches it again",
            f"secateur show {job.id}    shows how far it is",
            f"secateur cancel {job.id}  ends it",
        ),
    )


@contextmanager
def _bar() -> Iterator[Callable[[Job], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[steps]}"),
        TimeLeft(),
    )
    with Progress(*columns, console=render.err) as progress:
        bar = progress.add_task("", total=100, steps="", seconds=None)
        yield lambda job: progress.update(bar, **_bar_fields(job))


@contextmanager
def _lines(written: Callable[[Job], str]) -> Iterator[Callable[[Job], None]]:
    """Write a line at every change of phase, and every so often, whatever the server does meanwhile."""
    lines = _Lines(written)
    with lines:
        yield lines.show


class _Lines:
    """The last state of a job, written again by a thread where nothing else is."""

    def __init__(self, written: Callable[[Job], str]) -> None:
        self._written = written
        self._job: Job | None = None
        self._phase: tuple[str, str | None] | None = None
        self._at = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="still there", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def show(self, job: Job) -> None:
        """Take note of a state; write it if it is worth a line."""
        phase = (job.status, job.progress.phase if job.progress else None)
        with self._lock:
            self._job = job
            if phase != self._phase or time.monotonic() - self._at >= BUSY_SECONDS:
                self._write(job)
            self._phase = phase

    def _repeat(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            with self._lock:
                if self._job is not None and time.monotonic() - self._at >= QUIET_SECONDS:
                    self._write(self._job)

    def _write(self, job: Job) -> None:
        self._at = time.monotonic()
        render.line(self._written(job))


def _text(job: Job) -> str:
    fields = _bar_fields(job)
    percent = f"{job.progress.percent:.0f} %" if job.progress and not job.is_finished else ""
    parts = (fields["description"], percent, fields["steps"], _left(fields["seconds"]))
    return f"{job.id} " + ", ".join(part for part in parts if part)


def _json(job: Job) -> str:
    now = job.progress.model_dump(mode="json", exclude={"block"}) if job.progress else None
    return json.dumps({"job": job.id, "status": job.status, "progress": now, "queue": job.queue})


def _bar_fields(job: Job) -> dict[str, Any]:
    now = job.progress
    if job.is_finished or now is None:
        position = job.queue.get("position")
        waiting = f"queued, number {position}" if position else job.status
        done = 100 if job.status == "succeeded" else None
        fields = {"description": waiting, "steps": "", "seconds": None}
        return fields if done is None else {**fields, "completed": done}
    return {
        "description": job.status if job.status != "running" else now.phase,
        "completed": now.percent,
        "steps": _steps(now),
        "seconds": now.seconds_remaining,
    }


def _steps(now: JobProgress) -> str:
    """Return `block 3/30`, `2.1 GB of 4.8 GB`, or how much of how much is not known."""
    if now.unit == "byte":
        done, total = map(decimal, (now.step, now.total_steps))
        return f"{done} of {total}" if now.total_steps else done if now.step else ""
    if not now.total_steps:
        return f"{now.unit} {now.step:,}" if now.step else ""
    return f"{now.unit} {now.step:,}/{now.total_steps:,}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
