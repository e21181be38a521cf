"""How the checkpoint is written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.base import Frozen

RoundedDtype = Literal["bfloat16", "float16"]


class Output(Frozen):
    """Safetensors with the source's tensor names."""

    dtype: Literal["source"] | RoundedDtype | None = None
    """Type of all weights; what rounding to it changes is measured and reported. Unset: `source`, the type that each has there,
    and `bfloat16` for a GGUF file, whose weights `source` writes in float32."""
    shard_bytes: int = Field(default=5_000_000_000, ge=1_000_000, le=50_000_000_000)
    """Largest size of one weight file; a single larger tensor gets a file of its own."""

    def rounds_to(self, *, gguf: bool) -> RoundedDtype | None:
        """Return the type that weights are rounded to, None where each keeps its own.

        Args:
            gguf: Whether the source is a GGUF file.
        """
        asked = self.dtype or ("bfloat16" if gguf else "source")
        return None if asked == "source" else asked
