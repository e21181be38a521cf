"""What can be known of a folder's tokenizer without any library that reads it."""

from __future__ import annotations

from pathlib import Path

from pruning_core.checkpoints.stand_ins import refuse_stand_in_at
from pruning_core.errors import ModelInvalid

_USUAL = ("tokenizer.json", "vocab.json")
_READ = (*_USUAL, "vocab.txt")
"""Each is one that stock transformers reads without conversion."""
_OTHERS = {
    "tokenizer.model": ("sentencepiece", "sentencepiece protobuf"),
    "tokenizer.tiktoken": ("tiktoken", "tiktoken"),
    "tekken.json": ("tekken", "mistral-common"),
}
"""Formats that need conversion: what they are called, and the packages that it takes."""


def has_tokenizer(folder: Path) -> bool:
    """Tell whether there is a tokenizer of the usual kind."""
    return any((folder / name).is_file() for name in _USUAL)


def require_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer that can be read as it is.

    Raises:
        ModelInvalid: there is none; one in another format is named, with what converts it.
    """
    paths = [folder / name for name in _READ if (folder / name).is_file()]
    for path in paths:
        refuse_stand_in_at(path)
    if paths:
        return
    why = "calibration, recovery and perplexity need its tokenizer"
    for name, (kind, packages) in _OTHERS.items():
        if (folder / name).is_file():
            refuse_stand_in_at(folder / name)
            raise ModelInvalid(
                f"{folder.name} has its tokenizer as {name} ({kind}) alone and no tokenizer.json; {why}.",
                suggestions=(
                    f"convert it where {packages} is installed: "
                    f"AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
                ),
            )
    raise ModelInvalid(f"{folder.name} has no tokenizer.json; {why}")
