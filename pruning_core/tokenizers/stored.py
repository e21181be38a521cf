"""A tokenizer as its file and stock transformers together have it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pruning_core.errors import ModelInvalid
from pruning_core.tokenizers.files import TOKENIZER, read_json
from pruning_core.tokenizers.load import load_tokenizer
from pruning_core.tokenizers.renumber import ONE_ID

_KINDS = ("BPE", "Unigram", "WordPiece", "WordLevel")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer as the file and stock transformers together have it."""

    content: dict[str, Any]
    """tokenizer.json, with every added token that has a row in the embedding and no other."""
    kind: str
    vocab: dict[str, int]
    """The model's tokens; added ones need not be among them."""
    named: frozenset[int]
    """Ids that the tokenizer, its templates or the model's configuration call by name."""
    spelled_in_bytes: bool
    """Whether every character without a token of its own becomes bytes, and decodes back."""
    marks: frozenset[str]
    """Characters that the decoder looks for."""

    @property
    def model(self) -> dict[str, Any]:
        """The section of tokenizer.json that holds the vocabulary."""
        section: dict[str, Any] = self.content["model"]
        return section

    @cached_property
    def tokens(self) -> dict[int, str]:
        """The token of every id that exists."""
        added = {entry["id"]: entry["content"] for entry in self.content["added_tokens"]}
        return {place: token for token, place in self.vocab.items()} | added


def read_stored(folder: Path) -> StoredTokenizer:
    """Read the tokenizer of a folder.

    Raises:
        ModelInvalid: there is no tokenizer.json, or its vocabulary is of a kind that cannot be reduced.
    """
    path = folder / TOKENIZER
    if not path.is_file():
        raise ModelInvalid(
            f"{folder.name} has no {TOKENIZER}, without which its vocabulary cannot be reduced: "
            "load it with AutoTokenizer, save_pretrained it, and submit that folder."
        )
    content = read_json(path)
    kind = _kind(content["model"])
    if kind not in _KINDS:
        raise ModelInvalid(
            f"the vocabulary of a {kind} tokenizer cannot be reduced: "
            f"switch vocabulary pruning off, or use one of {', '.join(_KINDS)}."
        )
    loaded = load_tokenizer(folder)
    configs = [read_json(folder / name) for name in ("config.json", "generation_config.json")]
    rows = configs[0].get("vocab_size", float("inf"))
    vocab = {token: place for token, place in pieces(content["model"]) if place < rows}
    content["added_tokens"] = _added_tokens(content, loaded, vocab, rows)
    # A class of transformers may rebuild the pipeline, other readers take the file's: both count
    views = [content, json.loads(loaded.backend_tokenizer.to_str())]
    marks = (text for view in views for text in _texts(view.get("decoder")))
    return StoredTokenizer(
        content=content,
        kind=kind,
        vocab=vocab,
        named=frozenset(_named(content, loaded, configs)),
        spelled_in_bytes=vocab.keys() >= set(BYTES) and all(map(_falls_back, views)),
        marks=frozenset("".join(marks)),
    )


def _named(
    content: dict[str, Any], loaded: Any, configs: Iterable[dict[str, Any]]
) -> Iterator[int]:
    yield from loaded.added_tokens_decoder
    yield from loaded.all_special_ids
    yield from (container[key] for container, key in id_slots(content))
    for config in configs:
        for key, value in config.items():
            if key.endswith(ONE_ID) and value is not None:
                yield from value if isinstance(value, list) else [value]


def _kind(model: dict[str, Any]) -> str:
    """Return the model's type; files of early tokenizers releases do not name it."""
    if "type" in model:
        return str(model["type"])
    if "merges" in model:
        return "BPE"
    if isinstance(model["vocab"], list):
        return "Unigram"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"


def pieces(model: dict[str, Any]) -> Iterable[tuple[str, int]]:
    """Return the tokens of the section `model` with their ids, in the order of the ids."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        return ((piece, place) for place, (piece, _) in enumerate(vocab))
    return sorted(vocab.items(), key=lambda item: int(item[1]))


def _added_tokens(
    content: dict[str, Any], loaded: Any, vocab: dict[str, int], rows: float
) -> list[dict[str, Any]]:
    """Return the entries of tokenizer.json and those that transformers adds out of other files."""
    entries = {entry["id"]: entry for entry in content.get("added_tokens", [])}
    for place, token in loaded.added_tokens_decoder.items():
        if place not in entries and token.content not in vocab:
            flags = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
            entries[place] = {"id": place} | {flag: getattr(token, flag) for flag in flags}
    return [entries[place] for place in sorted(entries) if place < rows]


def id_slots(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield container and key of every id in tokenizer.json outside the vocabulary."""
    yield from ((entry, "id") for entry in content["added_tokens"])
    if content["model"].get("unk_id") is not None:
        yield content["model"], "unk_id"
    if content.get("padding"):
        yield content["padding"], "pad_id"
    yield from _template_slots(content.get("post_processor") or {})


def _template_slots(processor: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    for part in processor.get("processors", []):
        yield from _template_slots(part)
    for token in processor.get("special_tokens", {}).values():
        yield from ((token["ids"], place) for place in range(len(token["ids"])))
    yield from ((processor[name], 1) for name in ("sep", "cls") if name in processor)


def _falls_back(content: dict[str, Any]) -> bool:
    decoder = json.dumps(content.get("decoder"))
    return bool(content["model"].get("byte_fallback")) and "ByteFallback" in decoder


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, value in node.items():
            if key != "type":
                yield from _texts(value)
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value)
