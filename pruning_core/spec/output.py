"""How the checkpoint is written."""

from __future__ import annotations

from pydantic import Field

from pruning_core.spec.base import Frozen


class Output(Frozen):
    """Safetensors with the source's tensor names and dtype."""

    shard_bytes: int = Field(default=5_000_000_000, ge=1_000_000, le=50_000_000_000)
    """Largest size of one weight file; a single larger tensor gets a file of its own."""
