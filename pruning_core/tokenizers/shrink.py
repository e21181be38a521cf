"""A tokenizer cut down to the tokens that stay, renumbered so that embedding and head can be sliced alike."""

from __future__ import annotations

import copy
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pruning_core.checkpoints.companions import VOCABULARIES
from pruning_core.errors import ModelInvalid
from pruning_core.system.user_faults import blamed_on
from pruning_core.tokenizers.load import load_tokenizer

TOKENIZER = "tokenizer.json"
OLD_IDS = "token_map.json"
"""JSON list beside the reduced tokenizer: place = new id, value = old id."""
FILES = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json", *VOCABULARIES)
"""What only `shrink` may put into the target, each where the source has it. Vocabularies of other
formats never arrive: nothing here can renumber them, and stock transformers is content with tokenizer.json."""

_KINDS = ("BPE", "Unigram", "WordPiece", "WordLevel")
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_ONE_ID = ("_token_id", "_token_index")
_FORBIDDEN_IDS = ("suppress_tokens", "begin_suppress_tokens")
_FORBIDDEN_WORDS = ("bad_words_ids",)
_UNCLEAR_FILE = "tokenizer.json cannot be understood, so its vocabulary cannot be reduced"
_UNCLEAR = ("forced_decoder_ids", "force_words_ids", "sequence_bias")

Pair = tuple[str, str]


def kept_ids(folder: Path, wanted: Iterable[int]) -> tuple[int, ...]:
    """Return the token ids that must stay so that the `wanted` ones do, ascending.

    These are `protected_ids`, the wanted ids, and for BPE the halves of the merges that build them,
    recursively. A text that the old tokenizer reads as wanted tokens alone is then read as the same
    tokens; every other text still decodes to what it decoded to. Ids that the tokenizer does not
    have, such as padding rows of the embedding, never stay.

    Args:
        folder: Hugging Face folder with a tokenizer.json.
        wanted: Token ids, in any order.

    Raises:
        ModelInvalid: there is no tokenizer.json, or it cannot be understood.
    """
    with blamed_on(_UNCLEAR_FILE):
        return _kept(_read(folder), wanted)


def protected_ids(folder: Path) -> tuple[int, ...]:
    """Return the token ids that stay whatever is wanted, ascending and closed.

    Special and added tokens, what config.json and generation_config.json name, the unknown token,
    byte pieces, and, unless every character can fall back to bytes, all single characters.

    Raises:
        ModelInvalid: as `kept_ids`.
    """
    return kept_ids(folder, ())


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
    with blamed_on(_UNCLEAR_FILE):
        source = _read(folder)
        found = _kept(source, kept)
    if tuple(kept) != found:
        raise ValueError("the kept ids are not what kept_ids returned for this tokenizer")
    new = {old: place for place, old in enumerate(kept)}
    with blamed_on(_UNCLEAR_FILE):
        content = _shrunk(source, new)
        _write_json(target / TOKENIZER, content)
        _check(target / TOKENIZER, source, new)
        _write_companions(folder, target, content, new)
    _write_json(target / OLD_IDS, list(kept))


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


@dataclass(frozen=True)
class _Source:
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
        found: dict[str, Any] = self.content["model"]
        return found

    @cached_property
    def tokens(self) -> dict[int, str]:
        """The token of every id that exists."""
        added = {entry["id"]: entry["content"] for entry in self.content["added_tokens"]}
        return {place: token for token, place in self.vocab.items()} | added


def _read(folder: Path) -> _Source:
    path = folder / TOKENIZER
    if not path.is_file():
        raise ModelInvalid(
            f"{folder.name} has no {TOKENIZER}, without which its vocabulary cannot be reduced: "
            "load it with AutoTokenizer, save_pretrained it, and submit that folder."
        )
    content = _read_json(path)
    kind = _kind(content["model"])
    if kind not in _KINDS:
        raise ModelInvalid(
            f"the vocabulary of a {kind} tokenizer cannot be reduced: "
            f"switch vocabulary pruning off, or use one of {', '.join(_KINDS)}."
        )
    loaded = load_tokenizer(folder)
    configs = [_read_json(folder / name) for name in ("config.json", "generation_config.json")]
    rows = configs[0].get("vocab_size", float("inf"))
    vocab = {token: place for token, place in _pieces(content["model"]) if place < rows}
    content["added_tokens"] = _added_tokens(content, loaded, vocab, rows)
    # A class of transformers may rebuild the pipeline, other readers take the file's: both count
    views = [content, json.loads(loaded.backend_tokenizer.to_str())]
    marks = (text for view in views for text in _texts(view.get("decoder")))
    return _Source(
        content=content,
        kind=kind,
        vocab=vocab,
        named=frozenset(_named(content, loaded, configs)),
        spelled_in_bytes=vocab.keys() >= set(_BYTES) and all(map(_falls_back, views)),
        marks=frozenset("".join(marks)),
    )


def _named(
    content: dict[str, Any], loaded: Any, configs: Iterable[dict[str, Any]]
) -> Iterator[int]:
    yield from loaded.added_tokens_decoder
    yield from loaded.all_special_ids
    yield from (container[key] for container, key in _id_slots(content))
    for config in configs:
        for key, value in config.items():
            if key.endswith(_ONE_ID) and value is not None:
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


def _pieces(model: dict[str, Any]) -> Iterable[tuple[str, int]]:
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


def _id_slots(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
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


def _kept(source: _Source, wanted: Iterable[int]) -> tuple[int, ...]:
    ids = source.named | {source.vocab[token] for token in _protected(source)} | set(wanted)
    tokens = [source.tokens[place] for place in ids if place in source.tokens]
    closed = _closed(tokens, _halves(source)) if source.kind == "BPE" else set(tokens)
    return tuple(
        sorted(place for place, token in source.tokens.items() if token in closed or place in ids)
    )


def _protected(source: _Source) -> Iterator[str]:
    """Yield the tokens of the model without which some text would read or decode otherwise."""
    yield from (
        token for token in (*_BYTES, source.model.get("unk_token")) if token in source.vocab
    )
    if source.kind == "Unigram":
        # An unknown character costs a fixed amount more than the rarest piece
        pieces = (item for item in source.model["vocab"] if item[0] in source.vocab)
        yield min(pieces, key=lambda item: float(item[1]))[0]
    if source.spelled_in_bytes:
        yield from source.marks & source.vocab.keys()
    elif source.kind != "WordLevel":
        yield from _alphabet(source)


def _alphabet(source: _Source) -> Iterator[str]:
    """Yield the single characters, and the tokens that single characters cannot replace."""
    spell = _speller(source.model)
    for token in source.vocab:
        symbols = spell(token)
        if len(symbols) == 1 or not all(symbol in source.vocab for symbol in symbols):
            yield token


def _speller(model: dict[str, Any]) -> Callable[[str], list[str]]:
    """Return what splits a token into the symbols that the model starts from, such as `##i ##n ##g`."""
    prefix: str = model.get("continuing_subword_prefix") or ""
    suffix: str = model.get("end_of_word_suffix") or ""

    def spell(token: str) -> list[str]:
        continues = token.startswith(prefix) and token != prefix
        text = token[len(prefix) :] if continues else token
        ends = text.endswith(suffix) and text != suffix
        text = text[: len(text) - len(suffix)] if ends else text
        symbols = [prefix + character for character in text]
        if not continues:
            symbols[:1] = text[:1]
        if ends:
            symbols[-1:] = [symbol + suffix for symbol in symbols[-1:]]
        return symbols

    return spell


def _closed(tokens: Iterable[str], halves: Callable[[str], Iterable[str]]) -> set[str]:
    closed: set[str] = set()
    pending = list(tokens)
    while pending:
        token = pending.pop()
        if token not in closed:
            closed.add(token)
            pending.extend(halves(token))
    return closed


def _halves(source: _Source) -> Callable[[str], Iterable[str]]:
    """Return what names the tokens that the encoder joins last to build a token.

    No merge crosses the border of a final token, so the encoder builds it as it would build it
    alone, and each half again as that half alone: one step back, repeated, is the whole derivation.
    """
    ranks = {pair: rank for rank, pair in enumerate(_merges(source.model))}
    join = _joiner(source.model)
    spell = _speller(source.model)
    builders: dict[str, list[Pair]] = defaultdict(list)
    for pair in ranks:
        builders[join(pair)].append(pair)

    def halves(token: str) -> Iterable[str]:
        pairs = builders.get(token, [])
        last = _last_merge(spell(token), ranks, join) if len(pairs) > 1 else None
        # A token that the encoder does not reach from its characters may still come of bytes
        return last if last in pairs else (half for pair in pairs for half in pair)

    return halves


def _last_merge(
    symbols: list[str], ranks: dict[Pair, int], join: Callable[[Pair], str]
) -> Pair | None:
    """Merge as the encoder does, lowest rank first and leftmost of equals, until two symbols are left."""
    never = len(ranks)
    while len(symbols) > 2:
        pairs = list(pairwise(symbols))
        place = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], never))
        if pairs[place] not in ranks:
            return None
        symbols[place : place + 2] = [join(pairs[place])]
    return (symbols[0], symbols[1]) if len(symbols) == 2 else None


def _merges(model: dict[str, Any]) -> Iterator[Pair]:
    for merge in model["merges"]:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        yield first, second


def _joiner(model: dict[str, Any]) -> Callable[[Pair], str]:
    start = len(model.get("continuing_subword_prefix") or "")
    return lambda pair: pair[0] + pair[1][start:]


def _shrunk(source: _Source, new: dict[int, int]) -> dict[str, Any]:
    content = copy.deepcopy(source.content)
    for container, key in _id_slots(content):
        container[key] = _new_id(container[key], new, TOKENIZER)
    model = content["model"]
    if source.kind == "Unigram":
        model["vocab"] = [piece for place, piece in enumerate(model["vocab"]) if place in new]
        return content
    kept = {token: new[place] for token, place in source.vocab.items() if place in new}
    model["vocab"] = kept
    if source.kind == "BPE":
        join = _joiner(model)
        model["merges"] = [
            merge
            for merge, pair in zip(model["merges"], _merges(model), strict=True)
            if pair[0] in kept and pair[1] in kept and join(pair) in kept
        ]
    return content


def _check(path: Path, source: _Source, new: dict[int, int]) -> None:
    with blamed_on(f"the reduced {path.name} cannot be read"):
        found = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    if found != {source.tokens[old]: place for old, place in new.items()}:
        raise ModelInvalid(
            f"the ids in {path.name} do not follow the order of its tokens, so they cannot be renumbered: "
            "switch vocabulary pruning off."
        )


def _write_companions(
    folder: Path, target: Path, content: dict[str, Any], new: dict[int, int]
) -> None:
    vocab = dict(_pieces(content["model"]))
    if (folder / "tokenizer_config.json").is_file():
        config = _read_json(folder / "tokenizer_config.json")
        if "added_tokens_decoder" in config:
            config["added_tokens_decoder"] = {
                str(new[int(place)]): token
                for place, token in config["added_tokens_decoder"].items()
                if int(place) in new
            }
        _write_json(target / "tokenizer_config.json", config)
    if (folder / "added_tokens.json").is_file():
        added = _read_json(folder / "added_tokens.json")
        kept = {token: new[place] for token, place in added.items() if place in new}
        _write_json(target / "added_tokens.json", kept)
    if (folder / "special_tokens_map.json").is_file():
        shutil.copyfile(folder / "special_tokens_map.json", target / "special_tokens_map.json")
    if (folder / "vocab.json").is_file():
        _write_json(target / "vocab.json", vocab)
    if (folder / "merges.txt").is_file():
        _write_lines(
            target / "merges.txt", ["#version: 0.2", *map(" ".join, _merges(content["model"]))]
        )
    if (folder / "vocab.txt").is_file():
        _write_lines(target / "vocab.txt", vocab)


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
    if key.endswith(_ONE_ID):
        return _renumbered_ids(key, value, new)
    return value


def _renumbered_ids(key: str, value: int | list[int], new: dict[int, int]) -> int | list[int]:
    if isinstance(value, int):
        return value if value < 0 else _new_id(value, new, key)
    kept = [place for place in value if place in new]
    return [_new_id(place, new, key) for place in kept or value]


def _new_id(old: int, new: dict[int, int], where: str) -> int:
    if old not in new:
        raise ModelInvalid(
            f"{where} names token id {old}, which the tokenizer does not have or the model has no row for: "
            "correct it or set it to null."
        )
    return new[old]


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object, empty where there is no file."""
    if not path.is_file():
        return {}
    with blamed_on(f"{path.name} is not JSON"):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
