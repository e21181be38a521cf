"""Every setting of the service: one class, read from `SECATEUR_*`, shared by the front end and the workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PRIVATE: Final = 0o077
"""The umask of every process of the service: models, uploads and keys are for its own user alone."""
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """Immutable; an empty variable counts as unset."""

    model_config = SettingsConfigDict(
        env_prefix="SECATEUR_", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    data_dir: Path = Field(default_factory=lambda: Path.home() / ".local/share/secateur")
    """Parent of everything below that is not set on its own."""
    database_url: str = Field(
        default_factory=lambda data: f"sqlite:///{data['data_dir']}/secateur.db"
    )
    """`sqlite:///...` or `postgresql://...`."""
    broker_url: str | None = None
    """Redis (or RabbitMQ) that carries doorbells. Unset: workers poll."""
    environment: str = Field(default="dev", pattern=r"^[a-z0-9][a-z0-9\-]{0,31}$")
    """Keeps deployments that share a Redis apart."""
    artifacts_dir: Path = Field(default_factory=lambda data: Path(data["data_dir"]) / "artifacts")
    work_dir: Path = Field(default_factory=lambda data: Path(data["data_dir"]) / "work")
    cache_dir: Path = Field(default_factory=lambda data: Path(data["data_dir"]) / "cache")
    model_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders below which `file://` models may lie, joined by `os.pathsep`."""
    tasks_dir: Path | None = None
    """The operator's tasks: folders of JSON Lines, TOML declarations."""

    host: str = "127.0.0.1"
    port: int = Field(default=8571, ge=0, le=65535)
    max_body_bytes: int = Field(default=1_000_000, ge=1)
    max_file_bytes: int = Field(default=100_000_000, ge=1)
    """Of one upload."""
    examine_seconds: Seconds = 25
    """How long checking every line of an upload may take; the client waits for 30."""

    device: Literal["cpu", "gpu"] | None = None
    """What the workers prune on, where it is known: on a CPU jobs take less text by default."""
    flops: float | None = Field(default=None, gt=0)
    """Products and sums per second that a worker reaches in matrices, for the time that jobs are expected to take."""

    worker_slots: int = Field(default=1, ge=1)
    lease_seconds: Seconds = 60
    """How long a silent worker keeps its job."""
    heartbeat_seconds: Seconds = 15
    poll_seconds: Seconds = 5
    reconcile_seconds: Seconds = 5
    term_grace_seconds: Seconds = 10
    """Between asking a child to stop and killing it."""
    stall_seconds: Seconds = 900
    """Without progress for so long a child is killed."""
    hub_patience_seconds: Seconds = 3600
    """How long a job waits for a hub that is away."""
    max_crashes: int = Field(default=3, ge=1)

    @field_validator("data_dir", "artifacts_dir", "work_dir", "cache_dir", "tasks_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().absolute()

    @field_validator("model_roots", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(Path(part).expanduser() for part in value.split(os.pathsep) if part)

    @model_validator(mode="after")
    def _beats_before_the_lease_lapses(self) -> Self:
        if self.heartbeat_seconds >= self.lease_seconds:
            raise ValueError("heartbeat_seconds must be smaller than lease_seconds")
        return self
