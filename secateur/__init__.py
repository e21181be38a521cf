"""Prune large language models on a Secateur server."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - one clear sentence in the place of a traceback
    raise SystemExit(f"Secateur needs Python 3.11 or newer; this is {sys.version.split()[0]}.")

from secateur.client import Client
from secateur.errors import (
    Ambiguous,
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
    "Ambiguous",
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
