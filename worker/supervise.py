"""One attempt: start the child, hear it, stop it, store what it made, say how it ended."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic import ValidationError

from pruning_core.datasets.uploads import UserFile
from pruning_core.spec.model import ModelRef
from pruning_core.spec.progress import Progress
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report
from pruning_core.system import run_folder
from pruning_core.system.files import is_disk_full
from store import files as uploads
from store.artifacts import attempt_prefix
from store.backends import artifacts_of
from store.errors import ArtifactNotFound, LeaseLost
from store.leases import Claim
from store.session import Database
from store.settings import Settings
from worker import outcome as outcomes
from worker import publish
from worker.child import Child
from worker.cleanup import Janitor
from worker.errors import Stalled, UploadFailed, WorkerLost
from worker.failures import explain
from worker.lease import Lease
from worker.listener import Listener
from worker.outcome import Cancelled, Crashed, Fenced, Finished, GivenBack, Outcome, Refused
from worker.persist import GaveUp, persist
from worker.protocol import (
    ATTEMPT_FILE,
    EXIT_DRAINED,
    LOG_FILE,
    UPLOADS_FOLDER,
    Attempt,
    Failed,
    Succeeded,
)
from worker.watch import Stop, watch
from worker.workspace import Workspace

RUNNER = (sys.executable, "-m", "worker.runner")
LOG_TAIL_BYTES = 4000
TOLD_SECONDS = 1.0
"""Least time between two notes on how much is stored."""

log = structlog.get_logger()


class Supervisor:
    """Runs claims to their end; several threads may use one."""

    def __init__(
        self, database: Database, settings: Settings, *, command: Sequence[str] = RUNNER
    ) -> None:
        self._database = database
        self._settings = settings
        self._command = tuple(command)
        self._artifacts = artifacts_of(settings)
        self._janitor = Janitor(database, settings)

    def run(self, claim: Claim, *, claimed_at: float, drain: threading.Event) -> None:
        """Run one claim; `claimed_at` is the monotonic time just before it was made."""
        bound = {"job_id": claim.job_id, "epoch": claim.epoch}
        log.info("attempt.started", attempt=claim.attempt, **bound)
        with Lease(self._database, claim, self._settings, claimed_at=claimed_at) as lease:
            outcome = self._outcome(claim, lease, drain, claimed_at)
            settled = self._settle(claim, outcome, lease, drain)
        log.info("attempt.ended", outcome=type(outcome).__name__, settled=settled, **bound)
        self._janitor.clean(claim.job_id, settled=claim.epoch if settled else claim.epoch - 1)

    def sweep(self) -> None:
        """Remove what killed workers left on this machine of jobs that have ended since."""
        self._janitor.sweep()

    def _outcome(
        self, claim: Claim, lease: Lease, drain: threading.Event, claimed_at: float
    ) -> Outcome:
        try:
            return self._attempt(claim, lease, drain, claimed_at)
        except Exception as error:
            log.exception("attempt.broken", job_id=claim.job_id, epoch=claim.epoch)
            cause = explain(error)
            is_final = is_disk_full(error) or isinstance(error, ValidationError)
            return Refused(cause.payload()) if is_final else Crashed(cause.payload())

    def _attempt(
        self, claim: Claim, lease: Lease, drain: threading.Event, claimed_at: float
    ) -> Outcome:
        folder = Workspace(self._settings.work_dir, claim.job_id).prepare(claim.epoch)
        files = self._fetch(claim, lease, folder / UPLOADS_FOLDER)
        attempt = self._described(claim, files, claimed_at)
        (folder / ATTEMPT_FILE).write_text(attempt.model_dump_json())
        command = [*self._command, claim.job_id, str(claim.epoch), str(folder)]
        with Child(command, log=folder / LOG_FILE, tasks_dir=self._settings.tasks_dir) as child:
            listener = Listener(child.stdout, self._database, claim, lease)
            stop = watch(child, lease, listener, drain, self._settings)
            status = child.reap()
            listener.join()
        verdict = listener.verdict
        if stop in (None, Stop.DRAINED) and status == 0 and isinstance(verdict, Succeeded):
            return self._publish(attempt, folder, verdict.report, lease, listener)
        outcome = _judge(stop, status, verdict)
        if isinstance(outcome, Refused | Crashed):
            log.warning("child.failed", status=status, log=_tail(folder), job_id=claim.job_id)
        return outcome

    def _fetch(self, claim: Claim, lease: Lease, folder: Path) -> dict[str, UserFile]:
        """Lay the uploaded files that the job names beside its work; the child misses one that was deleted meanwhile."""
        if not uploads.named(claim.spec["prune"]):
            return {}
        rows = persist(
            self._database,
            lambda session: uploads.of_prune(session, claim.spec["prune"], project=claim.project),
            worth_trying=lambda: lease.held,
        )
        folder.mkdir()
        for row in rows.values():
            with suppress(ArtifactNotFound):
                self._artifacts.fetch(row.key, folder / row.id)
        return {
            name: UserFile.model_validate({"path": folder / row.id, **uploads.facts(row)})
            for name, row in rows.items()
        }

    def _described(self, claim: Claim, files: Mapping[str, UserFile], claimed_at: float) -> Attempt:
        settings = self._settings
        return Attempt(
            job_id=claim.job_id,
            epoch=claim.epoch,
            job_name=claim.name,
            parent=os.getpid(),
            seconds_before=time.monotonic() - claimed_at,
            earlier_seconds=claim.earlier_seconds,
            model=ModelRef.model_validate(claim.spec["model"]),
            prune=PruneSpec.model_validate(claim.spec["prune"]),
            model_roots=settings.model_roots,
            cache_dir=settings.cache_dir,
            tasks_dir=settings.tasks_dir,
            hub_patience_seconds=settings.hub_patience_seconds,
            files=dict(files),
        )

    def _publish(
        self, attempt: Attempt, folder: Path, report: Report, lease: Lease, listener: Listener
    ) -> Outcome:
        begun = time.monotonic()
        on_bytes = _uploading(report, listener)
        on_bytes(0)
        try:
            rows = publish.upload(
                folder / run_folder.CHECKPOINT,
                report,
                self._artifacts,
                under=attempt_prefix(attempt.job_id, attempt.epoch),
                go_on=lambda: lease.held and not lease.cancel_requested,
                on_bytes=on_bytes,
            )
        except UploadFailed:
            (folder / run_folder.REPORT).unlink(
                missing_ok=True
            )  # no later attempt may adopt this result
            raise
        if rows is not None:
            report = publish.after(report, time.monotonic() - begun)
            return Finished(report, tuple(rows), publish.preset(report, attempt.model))
        if lease.cancel_requested:
            return Cancelled()
        return Fenced() if lease.lost else GivenBack(Stop.EXPIRED.value)

    def _settle(self, claim: Claim, outcome: Outcome, lease: Lease, drain: threading.Event) -> bool:
        """Say how the attempt ended, if need be when the database is back; False where that is unknown."""
        try:
            status = persist(
                self._database,
                lambda session: outcomes.write(
                    session, claim, outcome, max_crashes=self._settings.max_crashes
                ),
                worth_trying=lambda: lease.held or not drain.is_set(),
            )
            log.info("attempt.settled", job_id=claim.job_id, epoch=claim.epoch, status=status)
        except LeaseLost:
            log.info("attempt.fenced", job_id=claim.job_id, epoch=claim.epoch)
        except GaveUp:
            return False
        return True


def _judge(stop: Stop | None, status: int, verdict: Succeeded | Failed | None) -> Outcome:
    """Say how a child ended that did not plainly succeed."""
    match stop:
        case Stop.LOST:
            return Fenced()
        case Stop.CANCELLED:
            return Cancelled()
        case Stop.EXPIRED:
            return GivenBack(stop.value)
        case Stop.STALLED:
            return Crashed(Stalled("The job made no progress for too long.").payload())
    if isinstance(verdict, Failed):
        return Refused(verdict.error)  # the child itself has waited for what may come back
    if stop is Stop.DRAINED or status == EXIT_DRAINED:
        return GivenBack(Stop.DRAINED.value)
    return Crashed(WorkerLost(f"The pruning process ended with status {status}.").payload())


def _uploading(report: Report, listener: Listener) -> Callable[[int], None]:
    """Return what takes the bytes of every stored piece and records their sum."""
    done, total, said = 0, sum(entry.bytes for entry in report.files), 0.0
    percent = listener.progress.percent if listener.progress else 0

    def on_bytes(stored: int) -> None:
        nonlocal done, said
        done = min(total, done + stored)
        if done < total and time.monotonic() - said < TOLD_SECONDS:
            return
        said = time.monotonic()
        listener.record(
            Progress(phase="uploading", step=done, total_steps=total, unit="byte", percent=percent)
        )

    return on_bytes


def _tail(folder: Path) -> str:
    """Return the end of the child's log, for the operator alone."""
    with (folder / LOG_FILE).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
