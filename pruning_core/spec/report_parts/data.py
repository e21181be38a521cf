"""Which data was read, and what of it calibrated."""

from __future__ import annotations

from typing import Literal

from pruning_core.spec.base import Frozen


class DataReport(Frozen):
    """Where one task's items came from."""

    task: str
    split: Literal["calibration", "eval"]
    origin: Literal["built-in", "folder", "hub", "file", "model"]
    file: str | None = None
    """What its sender called an uploaded file."""
    revision: str | None = None
    """Commit of a hub dataset."""
    items: int
    digest: str
    """sha256 over the items as they were read."""
    licence: str | None = None


class Overlap(Frozen):
    """Items that stand in both splits, used or not, by hash of their text in lower case without spaces and punctuation."""

    calibration_task: str
    evaluation_task: str
    items: int


class CalibrationReport(Frozen):
    """What the statistics were taken from."""

    tasks: dict[str, int]
    """Samples drawn per task."""
    seq_len: int
    """Tokens of the longest sample."""
    tokens: int
    seed: int
    digest: str
    """sha256 of the calibration token ids."""
