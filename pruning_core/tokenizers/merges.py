"""The merges of a BPE tokenizer, and how its encoder builds a token with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

Pair = tuple[str, str]


def merges(model: dict[str, Any]) -> Iterator[Pair]:
    """Yield the pairs that the encoder merges, the first first; files write them in two ways."""
    for merge in model["merges"]:
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        yield first, second


def joiner(model: dict[str, Any]) -> Callable[[Pair], str]:
    """Return what makes one token of the two of a merge."""
    start = len(model.get("continuing_subword_prefix") or "")
    return lambda pair: pair[0] + pair[1][start:]


def speller(model: dict[str, Any]) -> Callable[[str], list[str]]:
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


def halves_of(model: dict[str, Any]) -> Callable[[str], Iterable[str]]:
    """Return what names the tokens that the encoder joins last to build a token.

    No merge crosses the border of a final token, so the encoder builds it as it would build it
    alone, and each half again as that half alone: one step back, repeated, is the whole derivation.
    """
    ranks = {pair: rank for rank, pair in enumerate(merges(model))}
    join = joiner(model)
    spell = speller(model)
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
