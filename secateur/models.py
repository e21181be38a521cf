"""Answers of the server. Fields and values that this client does not know yet are kept, not refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from secateur.errors import JobFailed

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Answer(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Progress(Answer):
    """How far a running job is."""

    phase: str
    step: int = 0
    total_steps: int = 0
    unit: str = "block"
    percent: float = 0
    seconds_remaining: float | None = None
    phase_seconds_remaining: float | None = None


class Job(Answer):
    """A job as the server shows it."""

    id: str
    name: str | None = None
    labels: dict[str, str] = {}
    status: str
    status_reason: str | None = None
    phase: str | None = None
    spec: dict[str, Any]
    notes: tuple[str, ...] = ()
    estimate: dict[str, Any] | None = None
    progress: Progress | None = None
    queue: dict[str, Any] = {}
    attempt: dict[str, Any] = {}
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    etag: str

    @property
    def is_finished(self) -> bool:
        """Whether the job has reached its end, good or bad."""
        return self.status in TERMINAL

    def raise_for_status(self) -> Job:
        """Return the job itself.

        Raises:
            JobFailed: it ended without a result.
        """
        if not self.is_finished or self.status == "succeeded":
            return self
        error = self.error or {}
        raise JobFailed(
            str(error.get("detail", f"{self.id} ended {self.status}")),
            code=str(error.get("code", self.status.upper())),
            status=self.status,
            suggestions=tuple(error.get("suggestions", ())),
        )


class Event(Answer):
    """One line of a job's history."""

    id: str
    job_id: str
    type: str
    at: datetime
    from_status: str | None = None
    to_status: str | None = None
    detail: dict[str, Any] = {}


class ManifestFile(Answer):
    """One file of the checkpoint; `path` is relative and uses `/`."""

    path: str
    bytes: int
    sha256: str
    media_type: str
    url: str


class Manifest(Answer):
    """Every file of a finished job."""

    job_id: str
    total_bytes: int
    files: tuple[ManifestFile, ...]


class File(Answer):
    """An uploaded file; `task` is what a specification calls it."""

    id: str
    name: str
    task: str
    use: str
    format: str
    kind: str
    items: int
    bytes: int
    sha256: str
    created_at: datetime


class Method(Answer):
    """A pruning method."""

    name: str
    kind: str
    summary: str
    source: str
    needs_calibration: bool
    patterns: tuple[str, ...]
    default_pattern: str
    output: str
    params: dict[str, Any]


class Task(Answer):
    """Texts or questions that calibrate or evaluate; sizes are unknown before a hub's data is fetched."""

    name: str
    kind: str
    description: str
    language: str
    domain: str
    licence: str | None = None
    built_in: bool
    origin: str
    calibration_bytes: int | None = None
    evaluation_bytes: int | None = None
    reachable: bool
    reason: str | None = None


class Preset(Answer):
    """Coefficients of CRePE that a job can name; a shipped one has neither job nor time."""

    name: str
    coefficients: dict[str, Any]
    found: str
    job_id: str | None = None
    created_at: datetime | None = None


class Axis(Answer):
    """One kind of units of a model, and how many of them can be kept.

    `kept` has one object for every `multiple_of`: `count`, `from`, `to`, `step`, and `sizes` where they are few.
    """

    name: str
    title: str
    size: int
    unit_parameters: int
    largest_share: float
    removable: bool
    reason: str | None = None
    rule: str | None = None
    kept: tuple[dict[str, Any], ...] = ()


class MethodFit(Answer):
    """Whether a method that removes units has any to remove from a model."""

    name: str
    possible: bool
    units: tuple[str, ...] = ()
    reason: str | None = None


class Inspection(Answer):
    """What a model is, and what can be cut from it."""

    ref: str
    revision: str | None = None
    commit: str | None = None
    architecture: str
    model_type: str
    family: str
    parameters: int
    bytes: int
    dtype: str
    blocks: int
    max_positions: int
    tied_embeddings: bool
    query_heads: int
    query_heads_per_group: int
    head_dim: int
    axes: tuple[Axis, ...]
    methods: tuple[MethodFit, ...]
    notes: tuple[str, ...] = ()

    def axis(self, name: str) -> Axis:
        """Return the axis of this name: hidden, neurons, kv_groups, layers or vocabulary."""
        return next(axis for axis in self.axes if axis.name == name)
