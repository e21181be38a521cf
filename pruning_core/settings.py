"""The few things that the numerical library and what reads its data take from the environment."""

from __future__ import annotations

import os
from pathlib import Path


def tasks_dir() -> Path | None:
    """Folder of the operator's tasks (`SECATEUR_TASKS_DIR`), or None."""
    value = os.environ.get("SECATEUR_TASKS_DIR")
    return Path(value) if value else None


def accelerators_hidden() -> bool:
    """Whether every accelerator is hidden from this process (`CUDA_VISIBLE_DEVICES` empty or -1)."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")


def hub_offline() -> bool:
    """Whether nothing may be fetched from the hub (`HF_HUB_OFFLINE`, read as the hub library reads it)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def hub_address() -> str:
    """Where the hub answers (`HF_ENDPOINT`)."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
