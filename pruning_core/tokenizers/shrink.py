"""A tokenizer cut down to the tokens that stay, renumbered so that embedding and head can be sliced alike."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pruning_core.checkpoints.companions import VOCABULARIES
from pruning_core.errors import ModelInvalid
from pruning_core.system.user_faults import blamed_on
from pruning_core.tokenizers.files import (
    TOKENIZER,
    UNCLEAR_FILE,
    new_id,
    read_json,
    write_json,
    write_lines,
)
from pruning_core.tokenizers.kept import closed_ids
from pruning_core.tokenizers.merges import joiner, merges
from pruning_core.tokenizers.stored import StoredTokenizer, id_slots, pieces, read_stored

OLD_IDS = "token_map.json"
"""JSON list beside the reduced tokenizer: place = new id, value = old id."""
FILES = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json", *VOCABULARIES)
"""What only `shrink` may put into the target, each where the source has it. Vocabularies of other
formats never arrive: nothing here can renumber them, and stock transformers is content with tokenizer.json."""


def shrink(folder: Path, target: Path, kept: Sequence[int]) -> None:
    """Write the tokenizer of `folder`, reduced to `kept` and renumbered in the old order.

    Writes `FILES` where `folder` has them, and `OLD_IDS`; a SentencePiece model is left out.

    Args:
        folder: Hugging Face folder with a tokenizer.json.
        target: Existing folder.
        kept: Old ids as `kept_ids` returns them.

    Raises:
        ModelInvalid: as `kept_ids`, or the tokenizers library reads the result otherwise.
        ValueError: `kept` lacks a token that must stay, is not ascending, or names unknown ids.
    """
    with blamed_on(UNCLEAR_FILE):
        tokenizer = read_stored(folder)
        closed = closed_ids(tokenizer, kept)
    if tuple(kept) != closed:
        raise ValueError("the kept ids are not what kept_ids returned for this tokenizer")
    new = {old: place for place, old in enumerate(kept)}
    with blamed_on(UNCLEAR_FILE):
        content = _shrunk(tokenizer, new)
        write_json(target / TOKENIZER, content)
        _check(target / TOKENIZER, tokenizer, new)
        _write_others(folder, target, content, new)
    write_json(target / OLD_IDS, list(kept))


def _shrunk(tokenizer: StoredTokenizer, new: dict[int, int]) -> dict[str, Any]:
    content = copy.deepcopy(tokenizer.content)
    for container, key in id_slots(content):
        container[key] = new_id(container[key], new, TOKENIZER)
    model = content["model"]
    if tokenizer.kind == "Unigram":
        model["vocab"] = [piece for place, piece in enumerate(model["vocab"]) if place in new]
        return content
    kept = {token: new[place] for token, place in tokenizer.vocab.items() if place in new}
    model["vocab"] = kept
    if tokenizer.kind == "BPE":
        join = joiner(model)
        model["merges"] = [
            merge
            for merge, pair in zip(model["merges"], merges(model), strict=True)
            if pair[0] in kept and pair[1] in kept and join(pair) in kept
        ]
    return content


def _check(path: Path, tokenizer: StoredTokenizer, new: dict[int, int]) -> None:
    with blamed_on(f"the reduced {path.name} cannot be read"):
        vocabulary = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    if vocabulary != {tokenizer.tokens[old]: place for old, place in new.items()}:
        raise ModelInvalid(
            f"the ids in {path.name} do not follow the order of its tokens, so they cannot be renumbered: "
            "switch vocabulary pruning off."
        )


def _write_others(folder: Path, target: Path, content: dict[str, Any], new: dict[int, int]) -> None:
    vocab = dict(pieces(content["model"]))
    if (folder / "tokenizer_config.json").is_file():
        config = read_json(folder / "tokenizer_config.json")
        if "added_tokens_decoder" in config:
            config["added_tokens_decoder"] = {
                str(new[int(place)]): token
                for place, token in config["added_tokens_decoder"].items()
                if int(place) in new
            }
        write_json(target / "tokenizer_config.json", config)
    if (folder / "added_tokens.json").is_file():
        added = read_json(folder / "added_tokens.json")
        kept = {token: new[place] for token, place in added.items() if place in new}
        write_json(target / "added_tokens.json", kept)
    if (folder / "special_tokens_map.json").is_file():
        shutil.copyfile(folder / "special_tokens_map.json", target / "special_tokens_map.json")
    if (folder / "vocab.json").is_file():
        write_json(target / "vocab.json", vocab)
    if (folder / "merges.txt").is_file():
        write_lines(
            target / "merges.txt", ["#version: 0.2", *map(" ".join, merges(content["model"]))]
        )
    if (folder / "vocab.txt").is_file():
        write_lines(target / "vocab.txt", vocab)
