"""What supervisor and child say to each other: one file on the way in, JSON lines on the way out."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from pruning_core.datasets.uploads import LocalPath, UserFile
from pruning_core.printable import MESSAGE, shown_document
from pruning_core.spec.base import Frozen
from pruning_core.spec.model import ModelRef
from pruning_core.spec.progress import Progress
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report

ATTEMPT_FILE = "attempt.json"
LOG_FILE = "log.txt"
UPLOADS_FOLDER = "uploads"
_PAYLOAD_KEYS = {"code", "class", "retryable", "detail", "suggestions"}
EXIT_DRAINED = 75
"""EX_TEMPFAIL: stopped after a block, on request."""


def _payload(error: dict[str, Any]) -> dict[str, Any]:
    if not error.keys() >= _PAYLOAD_KEYS:
        raise ValueError("not the payload of a PruningError")
    bounded: dict[str, Any] = shown_document(error, MESSAGE)
    return bounded


class Attempt(Frozen):
    """All that the child needs to know; written to `attempt.json`."""

    job_id: str
    epoch: int
    job_name: str | None = None
    parent: int
    """Process id of the supervisor; the child ends when it is no longer its parent."""
    seconds_before: float = 0.0
    """From the claim to the start of the child."""
    earlier_seconds: float = 0.0
    """From the job's first claim to this one."""
    model: ModelRef
    prune: PruneSpec
    model_roots: tuple[LocalPath, ...]
    cache_dir: LocalPath
    tasks_dir: LocalPath | None
    hub_patience_seconds: float = 3600.0
    """How long a hub that is away is waited for."""
    files: dict[str, UserFile] = Field(default_factory=dict)
    """The uploaded files that `prune` names, as it names them; one that was deleted meanwhile is missing."""


class Progressed(Frozen):
    """One step was made."""

    type: Literal["progress"] = "progress"
    progress: Progress


class Resolved(Frozen):
    """What the references of the specification meant: commits, versions, seeds."""

    type: Literal["resolved"] = "resolved"
    resolved: dict[str, Any]


class Succeeded(Frozen):
    """The verified checkpoint lies in the attempt's folder."""

    type: Literal["succeeded"] = "succeeded"
    report: Report


class Failed(Frozen):
    """The attempt ended with an error that the user shall read."""

    type: Literal["failed"] = "failed"
    error: Annotated[dict[str, Any], AfterValidator(_payload)]


Message = Annotated[Progressed | Resolved | Succeeded | Failed, Field(discriminator="type")]

_MESSAGE: TypeAdapter[Progressed | Resolved | Succeeded | Failed] = TypeAdapter(Message)


def encode(message: BaseModel) -> bytes:
    """Return the message as one line; what strangers wrote into it can be stored and shown anywhere."""
    return json.dumps(shown_document(message.model_dump(mode="json"))).encode() + b"\n"


def decode(line: bytes) -> Progressed | Resolved | Succeeded | Failed | None:
    """Return the message of one line, or None where the line is none; Postgres stores no NUL."""
    try:
        return _MESSAGE.validate_json(line.replace(b"\\u0000", b"\\ufffd"))
    except ValidationError:
        return None
