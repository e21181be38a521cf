"""The few things that the numerical library takes from its environment."""

from __future__ import annotations

import os
from pathlib import Path


def tasks_dir() -> Path | None:
    """Folder with one sub-folder per calibration task (`SECATEUR_TASKS_DIR`), or None."""
    value = os.environ.get("SECATEUR_TASKS_DIR")
    return Path(value) if value else None
