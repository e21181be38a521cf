"""What stock transformers would refuse of the finished folder, found before any work is done."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from transformers import GenerationConfig

from pruning_core.intake.blame import blamed_on


def check_decoding(folder: Path) -> None:
    """Read how the model decodes, as loading it does; a file that is no JSON counts as absent there.

    Raises:
        ModelInvalid: no result with this file could be opened.
    """
    with blamed_on("stock transformers refuses generation_config.json"), suppress(OSError):
        GenerationConfig.from_pretrained(folder)
