"""The child process: `python -m worker.runner JOB EPOCH FOLDER` prunes, and tells its parent on stdout."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import structlog
from pydantic import BaseModel

from pruning_core.admission import submission
from pruning_core.errors import ResumeMismatch
from pruning_core.spec.progress import Progress
from pruning_core.spec.report import Origin, Report
from pruning_core.system import run_folder
from pruning_core.system.progress import Tracker
from store import logs
from worker import BEGUN
from worker.failures import explain
from worker.orphan import die_with
from worker.patience import patiently
from worker.protocol import (
    ATTEMPT_FILE,
    EXIT_DRAINED,
    Attempt,
    Failed,
    Progressed,
    Resolved,
    Succeeded,
    encode,
)

if TYPE_CHECKING:
    from worker.sources import Source

log = structlog.get_logger()


class Drained(Exception):
    """The supervisor asked the child to stop; the finished blocks wait in the work folder."""


class Conversation:
    """The child's side: tells the supervisor, and passes on its wish to stop."""

    def __init__(self, channel: BinaryIO, stop: threading.Event) -> None:
        self._channel = channel
        self._stop = stop
        self._last: Progress | None = None

    def progress(self, progress: Progress) -> None:
        """Report one step.

        Raises:
            Drained: the supervisor wants the child to stop, and no block is in hand.
        """
        self._last = progress.model_copy(update={"block": None})
        self.say(Progressed(progress=progress))
        within_step = progress.batches > 0
        watching = threading.current_thread() is not threading.main_thread()
        if self._stop.is_set() and not within_step and not watching:
            raise Drained

    def alive(self) -> None:
        """Repeat the last step, so that a long one is no stall."""
        if self._last is not None:
            self.say(Progressed(progress=self._last))

    def waiting(self) -> None:
        """Say that a hub is waited for.

        Raises:
            Drained: the supervisor wants the child to stop.
        """
        self.alive()
        if self._stop.is_set():
            raise Drained

    def say(self, message: BaseModel) -> None:
        """Write one line."""
        self._channel.write(encode(message))
        self._channel.flush()


def take_stdout() -> BinaryIO:
    """Keep the real stdout for messages; what libraries print goes to the log."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def main(folder: Path) -> int:
    """Run one attempt and return the exit status."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    conversation = Conversation(take_stdout(), stop)
    logs.configure(sys.stderr.fileno(), libraries=logging.WARNING)
    try:
        attempt = Attempt.model_validate_json((folder / ATTEMPT_FILE).read_text())
        die_with(attempt.parent)
        report = run(attempt, folder, conversation)
    except Drained:
        return EXIT_DRAINED
    except BaseException as error:  # a library's panic or exit ends no attempt without a word
        if stop.is_set():
            log.exception("attempt.stopped")
            return EXIT_DRAINED
        log.exception("attempt.failed")
        conversation.say(Failed(error=explain(error).payload()))
        return 1
    conversation.say(Succeeded(report=report))
    return 0


def run(attempt: Attempt, folder: Path, conversation: Conversation) -> Report:
    """Check again what may have changed since the submit, fetch the model, prune."""
    tracker = Tracker(conversation, _spent(attempt))
    tracker.begin("resolving")
    submission.check(
        attempt.model,
        attempt.prune,
        roots=attempt.model_roots,
        tasks_dir=attempt.tasks_dir,
        files=attempt.files,
    )
    from worker import sources  # here, because it imports torch

    def fetch() -> Source:
        return sources.fetch(
            attempt.model, roots=attempt.model_roots, cache_dir=attempt.cache_dir, tracker=tracker
        )

    seconds, waiting = attempt.hub_patience_seconds, conversation.waiting
    source = patiently(fetch, seconds=seconds, waiting=waiting)
    resolved = {
        "core_version": version("secateur"),
        "model_commit": source.commit,
        "seed": attempt.prune.calibration.seed,
    }
    conversation.say(Resolved(resolved=resolved))
    origin = Origin(
        model=attempt.model.ref,
        revision=attempt.model.revision,
        commit=source.commit,
        job_id=attempt.job_id,
        job_name=attempt.job_name,
    )

    def go_on() -> Report:
        return prune(source, attempt, origin, folder, tracker)

    return patiently(go_on, seconds=seconds, waiting=waiting)


def _spent(attempt: Attempt) -> dict[str, float]:
    """Return the seconds of the job until now, by phase."""
    spent = {"resolving": attempt.seconds_before + time.monotonic() - BEGUN}
    return spent | (
        {"earlier_attempts": attempt.earlier_seconds} if attempt.earlier_seconds else {}
    )


def prune(
    source: Source, attempt: Attempt, origin: Origin, folder: Path, tracker: Tracker
) -> Report:
    """Prune; state of another specification or version in the work folder is thrown away."""
    from pruning_core.pipeline import phases

    def begin() -> Report:
        return phases.prune(
            source.path,
            attempt.prune,
            folder,
            files=attempt.files,
            cache_dir=attempt.cache_dir,
            base_model=attempt.model.repo,
            origin=origin,
            root=source.root,
            tracker=tracker,
        )

    try:
        return begin()
    except ResumeMismatch as error:
        log.warning("resume.impossible", detail=error.message)
        shutil.rmtree(folder / run_folder.WORK)
        return begin()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[3])))
