"""How the checkpoint is written."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pruning_core.spec.base import Frozen

RoundedDtype = Literal["bfloat16", "float16"]
GgufType = Literal["f16", "q8_0"]


class Output(Frozen):
    """A Hugging Face folder with safetensors under the source's names, and on request a GGUF file in it."""

    dtype: Literal["source"] | RoundedDtype | None = None
    """Type of all weights; what rounding to it changes is measured and reported. Unset: `source`, the type that each has there,
    and `bfloat16` for a GGUF file, whose weights `source` writes in float32."""
    format: Literal["safetensors", "gguf"] = "safetensors"
    """`gguf` adds a file for llama.cpp, made from the checkpoint, read back and compared with it."""
    gguf_type: GgufType | None = None
    """Type of that file's matrices; unset: `f16`. Vectors are float32."""
    shard_bytes: int = Field(default=5_000_000_000, ge=1_000_000, le=50_000_000_000)
    """Largest size of one weight file; a single larger tensor gets a file of its own."""

    @model_validator(mode="after")
    def _type_of_a_file(self) -> Self:
        if self.gguf_type is not None and self.format != "gguf":
            raise ValueError("gguf_type is the type of a GGUF file: give `format: gguf` with it")
        return self

    @property
    def gguf(self) -> GgufType | None:
        """Type of the GGUF file, None where there is to be none."""
        return (self.gguf_type or "f16") if self.format == "gguf" else None

    def rounds_to(self, *, gguf: bool) -> RoundedDtype | None:
        """Return the type that weights are rounded to, None where each keeps its own.

        Args:
            gguf: Whether the source is a GGUF file.
        """
        asked = self.dtype or ("bfloat16" if gguf else "source")
        return None if asked == "source" else asked
