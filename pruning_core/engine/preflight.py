"""What stock transformers would refuse of the finished folder, found before any work is done."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from transformers import GenerationConfig

from pruning_core.engine.tokenizing import load_tokenizer
from pruning_core.intake.blame import blamed_on
from pruning_core.intake.checkpoint import has_tokenizer


def check(folder: Path) -> None:
    """Refuse files beside the weights with which no result of this model could be opened.

    Raises:
        ModelInvalid: which file, and why.
    """
    _check_generation(folder)
    if has_tokenizer(folder):
        load_tokenizer(folder)


def _check_generation(folder: Path) -> None:
    """Read how the model decodes, as loading it does; a file that is no JSON counts as absent there."""
    with blamed_on("stock transformers refuses generation_config.json"), suppress(OSError):
        GenerationConfig.from_pretrained(folder)
