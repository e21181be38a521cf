"""Data that users bring: an uploaded file of texts or questions, named `file:<id>` in a job."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pruning_core.spec.base import Frozen

Use = Literal["calibration", "evaluation", "both"]


class UserFile(Frozen):
    """An uploaded file that was found sound."""

    path: Path
    """JSON Lines or plain text in UTF-8."""
    format: Literal["jsonl", "text"]
    kind: Literal["text", "multiple_choice"]
    use: Use
    """`both`: a quarter of the items, by their hash, is held out for evaluation."""
    items: int
    bytes: int
    sha256: str
