"""Which tokens must stay so that others do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pruning_core.system.user_faults import blamed_on
from pruning_core.tokenizers.files import UNCLEAR_FILE
from pruning_core.tokenizers.merges import halves_of, speller
from pruning_core.tokenizers.stored import BYTES, StoredTokenizer, read_stored


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
    with blamed_on(UNCLEAR_FILE):
        return closed_ids(read_stored(folder), wanted)


def protected_ids(folder: Path) -> tuple[int, ...]:
    """Return the token ids that stay whatever is wanted, ascending and closed.

    Special and added tokens, what config.json and generation_config.json name, the unknown token,
    byte pieces, and, unless every character can fall back to bytes, all single characters.

    Raises:
        ModelInvalid: as `kept_ids`.
    """
    return kept_ids(folder, ())


def closed_ids(tokenizer: StoredTokenizer, wanted: Iterable[int]) -> tuple[int, ...]:
    """Return the same of a tokenizer that was read."""
    ids = (
        tokenizer.named | {tokenizer.vocab[token] for token in _protected(tokenizer)} | set(wanted)
    )
    tokens = [tokenizer.tokens[place] for place in ids if place in tokenizer.tokens]
    closed = _closed(tokens, halves_of(tokenizer.model)) if tokenizer.kind == "BPE" else set(tokens)
    return tuple(
        sorted(
            place for place, token in tokenizer.tokens.items() if token in closed or place in ids
        )
    )


def _protected(tokenizer: StoredTokenizer) -> Iterator[str]:
    """Yield the tokens of the model without which some text would read or decode otherwise."""
    yield from (
        token for token in (*BYTES, tokenizer.model.get("unk_token")) if token in tokenizer.vocab
    )
    if tokenizer.kind == "Unigram":
        # An unknown character costs a fixed amount more than the rarest piece
        pieces = (item for item in tokenizer.model["vocab"] if item[0] in tokenizer.vocab)
        yield min(pieces, key=lambda item: float(item[1]))[0]
    if tokenizer.spelled_in_bytes:
        yield from tokenizer.marks & tokenizer.vocab.keys()
    elif tokenizer.kind != "WordLevel":
        yield from _alphabet(tokenizer)


def _alphabet(tokenizer: StoredTokenizer) -> Iterator[str]:
    """Yield the single characters, and the tokens that single characters cannot replace."""
    spell = speller(tokenizer.model)
    for token in tokenizer.vocab:
        symbols = spell(token)
        if len(symbols) == 1 or not all(symbol in tokenizer.vocab for symbol in symbols):
            yield token


def _closed(tokens: Iterable[str], halves: Callable[[str], Iterable[str]]) -> set[str]:
    closed: set[str] = set()
    pending = list(tokens)
    while pending:
        token = pending.pop()
        if token not in closed:
            closed.add(token)
            pending.extend(halves(token))
    return closed
