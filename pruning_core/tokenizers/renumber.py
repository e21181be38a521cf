"""The token ids that a configuration names, renumbered for the tokens that stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pruning_core.errors import ModelInvalid
from pruning_core.system.user_faults import blamed_on
from pruning_core.tokenizers.files import new_id

ONE_ID = ("_token_id", "_token_index")
_FORBIDDEN_IDS = ("suppress_tokens", "begin_suppress_tokens")
_FORBIDDEN_WORDS = ("bad_words_ids",)
_UNCLEAR = ("forced_decoder_ids", "force_words_ids", "sequence_bias")


def renumbered(config: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return the content of config.json or generation_config.json for the kept tokens.

    Lists lose the ids that are gone; a forbidden word goes when one of its tokens does. None and
    negative ids, which switch a field off, stay.

    Args:
        config: The old content; left as it is.
        kept: Old ids, ascending; place = new id.

    Raises:
        ModelInvalid: a field names only tokens that are gone, or has a form that cannot be renumbered.
    """
    new = {old: place for place, old in enumerate(kept)}
    with blamed_on("the token ids of the configuration cannot be renumbered"):
        return {key: _renumbered_field(key, value, new) for key, value in config.items()}


def _renumbered_field(key: str, value: Any, new: dict[int, int]) -> Any:
    if key == "vocab_size":
        return len(new)
    if value is None:
        return None
    if key in _FORBIDDEN_IDS:
        return [new[place] for place in value if place in new]
    if key in _FORBIDDEN_WORDS:
        return [[new[place] for place in word] for word in value if new.keys() >= set(word)]
    if key in _UNCLEAR:
        raise ModelInvalid(f"{key} cannot be renumbered: remove it from generation_config.json.")
    if key.endswith(ONE_ID):
        return _renumbered_ids(key, value, new)
    return value


def _renumbered_ids(key: str, value: int | list[int], new: dict[int, int]) -> int | list[int]:
    if isinstance(value, int):
        return value if value < 0 else new_id(value, new, key)
    kept = [place for place in value if place in new]
    return [new_id(place, new, key) for place in kept or value]
