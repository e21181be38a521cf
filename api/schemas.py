"""Bodies and resources of the HTTP contract; the pruning vocabulary itself is `pruning_core.spec`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from pruning_core.datasets.declaration import TaskKind
from pruning_core.datasets.tasks import Origin
from pruning_core.datasets.uploads import Use
from pruning_core.printable import VISIBLE, plain
from pruning_core.spec.base import Frozen
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec

Plain = Annotated[str, StringConstraints(pattern=VISIBLE), AfterValidator(plain)]
Name = Annotated[Plain, StringConstraints(min_length=1, max_length=200)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./\-]{0,62}$")]
LabelValue = Annotated[Plain, StringConstraints(max_length=256)]
LabelFilter = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./\-]{0,62}:[^\x00-\x1f\x7f-\x9f]{0,256}$"),
]
MethodName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_\-]{1,64}$")]
Moment = Annotated[
    AwareDatetime, Field(ge=datetime(1970, 1, 2, tzinfo=UTC), le=datetime(9998, 1, 1, tzinfo=UTC))
]
Status = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
"""What a client may filter by. Clients accept further values."""

MAX_LABELS = 64


class JobSpec(Frozen):
    """What will run, shorthands expanded and defaults filled in; immutable and digested."""

    model: ModelRef
    prune: PruneSpec

    @field_validator("model", mode="before", json_schema_input_type=ModelRef | str)
    @classmethod
    def _text_or_object(cls, value: Any) -> Any:
        """Only documents that `ModelRef` takes a text too."""
        return value


class JobSubmission(JobSpec):
    """`POST /v1/jobs`: the specification, and how to find the job again."""

    name: Name | None = None
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=MAX_LABELS)


class PageQuery(BaseModel):
    """What every listing is asked."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Name | None = None
    """The whole name."""
    limit: int = Field(default=20, ge=1)
    """Larger than 100 counts as 100."""
    cursor: str | None = Field(default=None, max_length=512)
    """`next_cursor` of the page before, with the same filters."""
    order: Literal["asc", "desc"] = "desc"


class JobFilters(PageQuery):
    """Query of `GET /v1/jobs`."""

    status: Status | None = None
    method: MethodName | None = None
    model: Annotated[Plain, StringConstraints(max_length=4096)] | None = None
    """The model's `ref`, as the job shows it."""
    label: list[LabelFilter] = Field(default=[], max_length=16)
    """`key:value`; several must all match."""
    created_after: Moment | None = None
    id: Annotated[str, StringConstraints(pattern=r"^job_[0-9A-HJKMNP-TV-Z]{0,26}$")] | None = None
    """An id, or how it begins."""


class FileOptions(BaseModel):
    """Query of `POST /v1/files`; in a form, fields of the form."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Name | None = None
    """For people and error messages."""
    use: Use = "both"
    """`both`: a quarter of the items, by their hash, is held out for evaluation."""


class FileFilters(PageQuery):
    """Query of `GET /v1/files`."""

    use: Use | None = None
    id: Annotated[str, StringConstraints(pattern=r"^file_[0-9A-HJKMNP-TV-Z]{0,26}$")] | None = None
    """An id, or how it begins."""


class Queue(BaseModel):
    """Where a queued job stands; lists leave `position` null."""

    position: int | None


class Attempt(BaseModel):
    """How often the job was started, and how often a worker was lost with it."""

    number: int
    crashes: int


class Links(BaseModel):
    """Relative URLs."""

    self: str
    events: str
    cancel: str
    report: str
    manifest: str


class Job(BaseModel):
    """A pruning job: its specification, how far it is, and what came of it."""

    id: str = Field(examples=["job_01JDA2M9Q4XW5S8ZK6B7C3D1EF"])
    object: Literal["prune.job"] = "prune.job"
    name: str | None
    labels: dict[str, str]
    status: str = Field(examples=["running"])
    status_reason: str | None
    phase: str | None
    spec: dict[str, Any] = Field(
        description="`model` and `prune` as they will run: shorthands expanded, defaults filled in."
    )
    spec_digest: str
    notes: list[str] = Field(description="What was decided at submit in your place.")
    estimate: dict[str, Any] | None = Field(description="What was expected at submit.")
    resolved: dict[str, Any] | None
    progress: dict[str, Any] | None
    queue: Queue
    attempt: Attempt
    error: dict[str, Any] | None
    result: dict[str, Any] | None
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    created_by: str
    project: str
    etag: str
    links: Links


class Event(BaseModel):
    """One line of a job's history."""

    id: str = Field(examples=["evt_000000000042"])
    object: Literal["job.event"] = "job.event"
    job_id: str
    type: str = Field(examples=["job.progress"])
    at: datetime
    from_status: str | None
    to_status: str | None
    detail: dict[str, Any]


class JobPage(BaseModel):
    """One page of jobs."""

    object: Literal["list"] = "list"
    data: list[Job]
    has_more: bool
    next_cursor: str | None


class EventPage(BaseModel):
    """Events after the one asked for, oldest first."""

    object: Literal["list"] = "list"
    data: list[Event]
    has_more: bool


class ManifestFile(BaseModel):
    """One file of the checkpoint."""

    path: str
    bytes: int
    sha256: str
    media_type: str
    url: str


class Manifest(BaseModel):
    """Every file of a finished job."""

    object: Literal["manifest"] = "manifest"
    job_id: str
    total_bytes: int
    files: list[ManifestFile]


class File(BaseModel):
    """Uploaded data that was found sound."""

    id: str = Field(examples=["file_01JDA2M9Q4XW5S8ZK6B7C3D1EF"])
    object: Literal["file"] = "file"
    name: str
    task: str = Field(
        description="What `calibration.tasks` and `evaluation.tasks` call it.",
        examples=["file:file_01JDA2M9Q4XW5S8ZK6B7C3D1EF"],
    )
    use: str = Field(examples=["both"])
    format: str = Field(examples=["jsonl"])
    kind: str = Field(examples=["text"])
    items: int
    bytes: int
    sha256: str
    created_at: datetime
    created_by: str
    project: str


class FilePage(BaseModel):
    """One page of files."""

    object: Literal["list"] = "list"
    data: list[File]
    has_more: bool
    next_cursor: str | None


class Method(BaseModel):
    """One pruning method; `params` is the JSON Schema of its object in `prune.method`."""

    name: str
    object: Literal["method"] = "method"
    kind: str
    summary: str
    source: str
    needs_calibration: bool
    patterns: list[str]
    default_pattern: str
    output: str
    params: dict[str, Any]


class MethodList(BaseModel):
    """All methods."""

    object: Literal["list"] = "list"
    data: list[Method]
    has_more: Literal[False] = False


class Task(BaseModel):
    """Texts or questions that calibrate or evaluate."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    object: Literal["task"] = "task"
    kind: TaskKind
    description: str
    language: str
    domain: str
    licence: str | None
    """Of the data."""
    built_in: bool
    origin: Origin
    """Where its data comes from; `model`: the dense model writes it."""
    calibration_bytes: int | None
    """For texts an upper bound of the tokens; null where it is unknown before the data is fetched."""
    evaluation_bytes: int | None
    reachable: bool
    """Whether the data is here, or its hub has answered the front end within the last minute."""
    reason: str | None
    """Why it is not reachable."""


class TaskList(BaseModel):
    """All tasks."""

    object: Literal["list"] = "list"
    data: list[Task]
    has_more: Literal[False] = False


class Coefficients(BaseModel):
    """What a preset puts in the place of its name."""

    alpha: float
    beta: float
    gamma: float
    kernel: int
    neighbour: str


class Preset(BaseModel):
    """Coefficients of CRePE by name; one that ships with the service has neither job nor time."""

    name: str
    object: Literal["preset"] = "preset"
    coefficients: Coefficients
    found: str = Field(
        description="What they were searched on.",
        examples=["pho on hf://Qwen/Qwen3-0.6B@main, sparsity 0.5, 8 windows"],
    )
    job_id: str | None = Field(description="The job that searched.")
    created_at: datetime | None


class PresetList(BaseModel):
    """All presets, by name."""

    object: Literal["list"] = "list"
    data: list[Preset]
    has_more: Literal[False] = False


class Health(BaseModel):
    """Whether this process can serve."""

    status: Literal["ok", "ready"]
    database: Literal["ok"] | None = None
    broker: Literal["ok", "away", "none"] | None = None
