"""The progress on the way to a report."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.base import Frozen
from pruning_core.spec.report_parts.removal import BlockReport

Phase = Literal[
    "resolving",
    "downloading",
    "converting",
    "preparing",
    "calibrating",
    "searching",
    "allocating",
    "evaluating",
    "pruning",
    "saving",
    "recovering",
    "verifying",
    "reporting",
    "uploading",
]


class Progress(Frozen):
    """One step of the way; `block` is set when a block has been pruned and stored."""

    phase: Phase
    step: int = Field(ge=0)
    """Units that are done."""
    total_steps: int = Field(ge=0)
    """Units that there are to do; 0 where that is not known."""
    unit: str = "block"
    """What is counted: blocks, bytes, tokens, tensors, steps, windows and the like; it may change within a phase."""
    batches: int = Field(default=0, ge=0)
    """Batches, or whatever a unit is made of, that are done since the last whole unit."""
    percent: float = Field(ge=0, le=100)
    """Of everything from the first forward pass on."""
    seconds_remaining: float | None = None
    """Of the same; None until enough was timed to estimate it."""
    phase_seconds_remaining: float | None = None
    """Of the units of the phase in hand; None until enough was timed, or where it is not known how many there are."""
    block: BlockReport | None = None
