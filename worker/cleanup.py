"""Removes what attempts leave behind: folders of jobs that have ended, uploads that no row points to."""

from __future__ import annotations

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store import artifacts
from store.artifacts import attempt_prefix
from store.backends import artifacts_of, drafts_of
from store.session import Database
from store.settings import Settings
from store.states import TERMINAL
from store.tables import Job
from worker.workspace import Workspace

log = structlog.get_logger()


class Janitor:
    """Cleans up after the attempts of this machine; called twice, it does nothing more."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._work_dir = settings.work_dir
        self._artifacts = artifacts_of(settings)
        self._drafts = drafts_of(settings)

    def sweep(self) -> None:
        """Clean up after every job that has a folder here, such as those of a worker that was killed, and after front ends."""
        self._drafts.sweep()
        if not self._work_dir.is_dir():
            return
        for folder in self._work_dir.iterdir():
            self.clean(folder.name)

    def clean(self, job_id: str, *, settled: int = 0) -> None:
        """Delete the job's folders once it has ended, and the uploads of attempts that cannot win any more.

        Args:
            job_id: The job.
            settled: The attempts up to this one are over, whether or not the job has ended.
        """
        try:
            self._clean(job_id, settled)
        except (SQLAlchemyError, OSError) as error:
            log.warning("cleanup.failed", job_id=job_id, error=type(error).__name__)

    def _clean(self, job_id: str, settled: int) -> None:
        with self._database.read() as session:
            job = session.get(Job, job_id)
            winners = {row.epoch for row in artifacts.rows(session, job_id)}
        if job is None:
            return
        ended = job.status in TERMINAL
        for epoch in range(1, (job.epoch if ended else settled) + 1):
            if epoch not in winners:
                self._artifacts.delete_below(attempt_prefix(job_id, epoch))
        if ended:
            Workspace(self._work_dir, job_id).remove()
