"""The model's own tokenizer, as stock transformers reads it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from pruning_core.errors import ModelInvalid


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's tokenizer.

    Raises:
        ModelInvalid: there is none that stock transformers can read.
    """
    logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ModelInvalid(f"the tokenizer of {folder.name} cannot be read: {error}") from error


def beginning(tokenizer: Any) -> int | None:
    """Return the token that this tokenizer puts before every text, if any."""
    begin: int | None = tokenizer.bos_token_id
    return begin if begin in tokenizer("a", verbose=False)["input_ids"][:1] else None
