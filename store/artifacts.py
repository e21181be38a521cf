"""Result files: a row each in the database, the bytes in the artifact store."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import ArtifactNotFound
from store.tables import Artifact

REPORT_PAGE = "report.html"


@dataclass(frozen=True)
class ArtifactRow:
    """What is recorded of one file; `path` is what clients ask for, `key` where the bytes are."""

    path: str
    key: str
    sha256: str
    bytes: int
    media_type: str = "application/octet-stream"


def rows(session: Session, job_id: str) -> list[Artifact]:
    """Return a job's files by path."""
    return list(
        session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.path))
    )


def row(session: Session, job_id: str, path: str) -> Artifact:
    """Return one file's row.

    Raises:
        ArtifactNotFound: The job has no such file.
    """
    artifact = session.get(Artifact, (job_id, path))
    if artifact is None:
        raise ArtifactNotFound(
            f"job {job_id} has no file {path}: its manifest lists those there are"
        )
    return artifact


def attempt_prefix(job_id: str, epoch: int) -> str:
    """Return the key below which one attempt's artifacts lie; no two attempts share one."""
    return f"jobs/{job_id}/e{epoch}"


def report_page_key(prefix: str) -> str:
    """Return where an attempt's report for people lies: beside the checkpoint's files, in no manifest."""
    return f"{prefix}/{REPORT_PAGE}"
