"""Rows of the store as resources of the HTTP contract."""

from __future__ import annotations

from urllib.parse import quote

from api import schemas
from store import jobs
from store.tables import Artifact
from store.tables import Event as EventRow
from store.tables import File as FileRow
from store.tables import Job as JobRow


def etag_of(job: JobRow) -> str:
    """Return the weak validator that changes with every update of the row."""
    return f'W/"{job.version}"'


def job_resource(job: JobRow, *, position: int | None = None) -> schemas.Job:
    base = f"/v1/jobs/{job.id}"
    return schemas.Job(
        id=job.id,
        name=job.name,
        labels=job.labels,
        status=jobs.client_status(job),
        status_reason=job.status_reason,
        phase=job.phase,
        spec=job.spec,
        spec_digest=job.spec_digest,
        notes=job.notes,
        estimate=job.estimate,
        resolved=job.resolved,
        progress=job.progress,
        queue=schemas.Queue(position=position),
        attempt=schemas.Attempt(number=job.attempt, crashes=job.crash_count),
        error=job.error,
        result=job.result,
        created_at=job.created_at,
        queued_at=job.queued_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        created_by=job.created_by,
        project=job.project,
        etag=etag_of(job),
        links=schemas.Links(
            self=base,
            events=f"{base}/events",
            cancel=f"{base}/cancel",
            report=f"{base}/report",
            manifest=f"{base}/manifest",
        ),
    )


def submitted_resource(job: JobRow) -> schemas.Job:
    """Return the job as its submit was answered, however far it has come since."""
    return job_resource(job).model_copy(
        update={
            "status": "queued",
            "status_reason": None,
            "phase": None,
            "resolved": None,
            "progress": None,
            "attempt": schemas.Attempt(number=0, crashes=0),
            "error": None,
            "result": None,
            "queued_at": job.created_at,
            "started_at": None,
            "finished_at": None,
            "etag": 'W/"1"',
        }
    )


def event_resource(event: EventRow) -> schemas.Event:
    return schemas.Event(
        id=event.id,
        job_id=event.job_id,
        type=event.type,
        at=event.at,
        from_status=event.from_status,
        to_status=event.to_status,
        detail=event.detail,
    )


def upload_resource(file: FileRow) -> schemas.File:
    return schemas.File(
        id=file.id,
        name=file.name,
        task=file.task,
        use=file.use,
        format=file.format,
        kind=file.kind,
        items=file.items,
        bytes=file.bytes,
        sha256=file.sha256,
        created_at=file.created_at,
        created_by=file.created_by,
        project=file.project,
    )


def file_resource(artifact: Artifact) -> schemas.ManifestFile:
    return schemas.ManifestFile(
        path=artifact.path,
        bytes=artifact.bytes,
        sha256=artifact.sha256,
        media_type=artifact.media_type,
        url=f"/v1/jobs/{artifact.job_id}/artifacts/{quote(artifact.path)}",
    )
