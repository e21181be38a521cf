"""Prune large language models on a Secateur server."""

from __future__ import annotations

from secateur.client import Client
from secateur.errors import (
    ApiError,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    DownloadError,
    Forbidden,
    Invalid,
    JobFailed,
    NotFound,
    SecateurError,
    Unauthenticated,
    Unavailable,
    WaitTimeout,
)
from secateur.models import Event, File, Job, Manifest, ManifestFile, Method, Preset, Progress, Task

__all__ = [
    "ApiError",
    "Client",
    "ConfigurationError",
    "Conflict",
    "ConnectionFailed",
    "DownloadError",
    "Event",
    "File",
    "Forbidden",
    "Invalid",
    "Job",
    "JobFailed",
    "Manifest",
    "ManifestFile",
    "Method",
    "NotFound",
    "Preset",
    "Progress",
    "SecateurError",
    "Task",
    "Unauthenticated",
    "Unavailable",
    "WaitTimeout",
]
