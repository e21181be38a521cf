"""The tables: what outlives a process."""

from __future__ import annotations

from datetime import datetime
from itertools import combinations
from typing import Any, ClassVar, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from ulid import ULID

from store.clock import UTCDateTime

Document = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Big = BigInteger().with_variant(Integer(), "sqlite")


def new_id(prefix: str) -> str:
    """Return `<prefix>_<ULID>`; its time is a convenience, nothing sorts by it alone."""
    return f"{prefix}_{ULID()}"


class Base(DeclarativeBase):
    """What every table shares."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        datetime: UTCDateTime(),
        dict[str, Any]: Document,
        dict[str, str]: Document,
        list[str]: Document,
    }


FILTERS: Final = tuple(
    chosen for count in (1, 2, 3) for chosen in combinations(("status", "method", "model"), count)
)
"""What jobs are filtered by together: each has an index, or a filter that matches nothing would read every job."""


class Job(Base):
    """One job: the queue, the outbox and the result are this row."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str | None]
    labels: Mapped[dict[str, str]]
    status: Mapped[str]
    status_reason: Mapped[str | None]
    phase: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    """`{"model": ModelRef, "prune": PruneSpec}` as JSON."""
    method: Mapped[str | None]
    model: Mapped[str | None]
    """Of `spec`, to be filtered by."""
    spec_digest: Mapped[str]
    notes: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    """What was decided at submit in place of the client."""
    estimate: Mapped[dict[str, Any] | None]
    """How long it may take, as it was expected at submit."""
    resolved: Mapped[dict[str, Any] | None]
    progress: Mapped[dict[str, Any] | None]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    run_after: Mapped[datetime]
    attempt: Mapped[int] = mapped_column(default=0)
    crash_count: Mapped[int] = mapped_column(default=0)
    epoch: Mapped[int] = mapped_column(Big, default=0)
    """The fencing token: one more at every claim."""
    owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    progress_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    published_at: Mapped[datetime | None]
    publishes: Mapped[int] = mapped_column(default=0)
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    report: Mapped[dict[str, Any] | None]
    version: Mapped[int] = mapped_column(Big, default=1)
    """One more whenever a client would see a difference."""

    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="status"
        ),
        CheckConstraint(
            "(status = 'running') = (owner IS NOT NULL AND lease_until IS NOT NULL)", name="lease"
        ),
        Index(
            "ix_jobs_queued",
            "created_at",
            "id",
            sqlite_where=text("status = 'queued'"),
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_jobs_queued_project",
            "project",
            "created_at",
            "id",
            sqlite_where=text("status = 'queued'"),
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_jobs_running",
            "project",
            "lease_until",
            sqlite_where=text("status = 'running'"),
            postgresql_where=text("status = 'running'"),
        ),
        Index("ix_jobs_project", "project", "created_at", "id"),
        Index("ix_jobs_id", "project", "id"),
        Index("ix_jobs_name", "project", "name", "created_at", "id"),
        *(
            Index(f"ix_jobs_{'_'.join(columns)}", "project", *columns, "created_at", "id")
            for columns in FILTERS
        ),
    )


# Constants, not parameters: a partial index serves only a query that states its condition.
IS_QUEUED = Job.status == literal_column("'queued'")
IS_RUNNING = Job.status == literal_column("'running'")


class JobLabel(Base):
    """One label of a job, to be filtered by in the order of jobs."""

    __tablename__ = "job_labels"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    project: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_job_labels_value", "project", "key", "value", "created_at", "job_id"),
    )


class Event(Base):
    """One line of a job's history; never changed."""

    __tablename__ = "job_events"

    seq: Mapped[int] = mapped_column(Big, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    at: Mapped[datetime]
    type: Mapped[str]
    from_status: Mapped[str | None]
    to_status: Mapped[str]
    epoch: Mapped[int] = mapped_column(Big)
    actor: Mapped[str]
    detail: Mapped[dict[str, Any]]

    __table_args__ = (Index("ix_job_events_job", "job_id", "seq"), {"sqlite_autoincrement": True})

    @property
    def id(self) -> str:
        """What clients call it, and send back as `Last-Event-ID`."""
        return f"evt_{self.seq:012d}"


class Artifact(Base):
    """One file of a job's result; its key is where the artifact store keeps the bytes."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(Big)
    key: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(Big)
    media_type: Mapped[str]


class File(Base):
    """One uploaded file that was found sound; its key is where the artifact store keeps the bytes."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    name: Mapped[str]
    use: Mapped[str]
    format: Mapped[str]
    kind: Mapped[str]
    items: Mapped[int] = mapped_column(Big)
    bytes: Mapped[int] = mapped_column(Big)
    sha256: Mapped[str]
    key: Mapped[str]
    splits: Mapped[dict[str, Any] | None]
    """Items and bytes of text of each split; None of files from before they were counted."""

    __table_args__ = (
        UniqueConstraint("project", "sha256", "use", "format", name="uq_files_content"),
        Index("ix_files_project", "project", "created_at", "id"),
        Index("ix_files_id", "project", "id"),
        Index("ix_files_name", "project", "name", "created_at", "id"),
    )

    @property
    def task(self) -> str:
        """What a specification calls it."""
        return f"file:{self.id}"


class Preset(Base):
    """Coefficients that a job's search found, under a name that is the project's own."""

    __tablename__ = "presets"

    project: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    coefficients: Mapped[dict[str, Any]]
    """`pruning_core.admission.presets.Preset` as JSON."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime]
    created_by: Mapped[str]


class IdempotencyRecord(Base):
    """Which job an Idempotency-Key made."""

    __tablename__ = "idempotency"

    project: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    job_id: Mapped[str] = mapped_column(
        ForeignKey("jobs.id", deferrable=True, initially="DEFERRED")
    )
    expires_at: Mapped[datetime]


class ApiKey(Base):
    """A key's hash and what it may do; the secret itself is nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
