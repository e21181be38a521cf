"""The model's own tokenizer, as stock transformers reads it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from pruning_core.system.user_faults import blamed_on


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's tokenizer.

    Raises:
        ModelInvalid: there is none that stock transformers can read.
    """
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
    with blamed_on(f"the tokenizer of {folder.name} cannot be read"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def check_tokenizer(folder: Path, tokenizer: Any, text: str) -> None:
    """Encode and decode a text, as everything that comes later will.

    Args:
        folder: Where the tokenizer is from.
        tokenizer: As `load_tokenizer` returns it.
        text: Any.

    Raises:
        ModelInvalid: it cannot.
    """
    ids = encoded(tokenizer, text)["input_ids"]
    with blamed_on(f"the tokenizer of {folder.name} cannot decode its own tokens"):
        tokenizer.decode(ids)


def encoded(tokenizer: Any, text: str, **how: bool) -> Any:
    """Return what the tokenizer makes of a text.

    Raises:
        ModelInvalid: it fails on it.
    """
    with blamed_on("the tokenizer cannot read a text"):
        return tokenizer(text, verbose=False, **how)


def beginning(tokenizer: Any) -> int | None:
    """Return the token that this tokenizer puts before every text, if any."""
    begin: int | None = tokenizer.bos_token_id
    return begin if begin in encoded(tokenizer, "a")["input_ids"][:1] else None
