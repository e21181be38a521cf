"""Numbers and verdicts as people read them."""

from __future__ import annotations

import math
import unicodedata

from pruning_core.spec.composition import Uniform
from pruning_core.spec.methods import CRePE
from pruning_core.spec.patterns import NofM
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Interval, Perplexity, Report, Score

DIGITS = 4
CHANCE = 0.05
"""A p-value from here on is called chance: the complement of the intervals' 95 %."""
_SMALLEST, _LARGEST = 1e-4, 1e15
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
WITHIN_CHANCE = "within chance"


def tied(text: str) -> str:
    """Return text that no line may break."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def number(value: float) -> str:
    """Return four significant digits, thousands apart; powers of ten only where digits would mislead."""
    size = abs(value)
    if size == 0:
        return "0"
    if not _SMALLEST <= size < _LARGEST:
        return f"{value:.{DIGITS - 1}e}"
    decimals = max(0, DIGITS - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def given(value: float | None) -> str:
    """Return a number that someone set, as they set it; nothing where they did not."""
    return "" if value is None else f"{value:.{DIGITS}g}"


def percent(share: float) -> str:
    """Return a share as per cent, without digits that say nothing."""
    return tied(f"{100 * share:.{DIGITS}g} %")


def size(count: int) -> str:
    """Return bytes in the largest unit that leaves a whole part."""
    power = min(len(_UNITS) - 1, max(0, count.bit_length() - 1) // 10)
    if power == 0:
        return tied(f"{count} bytes")
    scaled = count / 1024**power
    return tied(f"{scaled:,.{0 if scaled >= 100 else 1}f} {_UNITS[power]}")


def seconds(value: float) -> str:
    """Return a duration: `3.2 s`, `2 min 5 s`, `1 h 3 min`."""
    if value < 60:
        return tied(f"{value:.3g} s")
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return tied(f"{minutes} min {rest} s")
    return tied(f"{minutes // 60:,} h {minutes % 60} min")


def with_interval(value: float | None, interval: Interval | None) -> str:
    """Return a figure and its interval; nothing where it was not measured."""
    if value is None:
        return ""
    if interval is None:
        return number(value)
    return f"{number(value)} {tied(f'({number(interval.low)} to {number(interval.high)})')}"


def share_with_interval(share: float | None, interval: Interval | None) -> str:
    """Return an accuracy as per cent and its interval; nothing where it was not measured."""
    if share is None:
        return ""
    value = tied(f"{100 * share:.1f} %")
    if interval is None:
        return value
    return f"{value} {tied(f'({100 * interval.low:.1f} to {100 * interval.high:.1f})')}"


def p_value(value: float | None) -> str:
    """Return a p-value; small ones by their bound."""
    if value is None:
        return ""
    return tied("below 0.001") if value < 0.001 else f"{value:.3f}"


def judged_score(score: Score) -> str:
    """Say whether an accuracy changed, by its test."""
    if score.p_value is None or score.dense is None:
        return ""
    if score.p_value >= CHANCE:
        return WITHIN_CHANCE
    return "better, beyond chance" if score.pruned > score.dense else "worse, beyond chance"


def judged_ratio(measured: Perplexity) -> str:
    """Say whether a perplexity changed, by the interval of its ratio."""
    interval = measured.ratio_interval
    if interval is None:
        return ""
    if interval.low > 1:
        return "worse, beyond chance"
    return "better, beyond chance" if interval.high < 1 else WITHIN_CHANCE


def amount(spec: PruneSpec) -> str:
    """Return how much is removed, and within what."""
    if isinstance(spec.pattern, NofM):
        return f"{spec.pattern.n}:{spec.pattern.m}, {percent(spec.ratio)} removed"
    scope = "row" if spec.pattern.name == "row" else "matrix"
    return f"{percent(spec.ratio)}, compared within each {scope}"


def what_was_done(report: Report) -> str:
    """Return one sentence: method, amount, model, and what came on top."""
    spec = report.spec
    model = f"a {report.family} model ({report.architecture})"
    sentence = f"{spec.method.name} removed {_removed(spec)} of {model}"
    extras = _extras(spec)
    return f"{sentence}, {', '.join(extras)}." if extras else f"{sentence}."


def _removed(spec: PruneSpec) -> str:
    if isinstance(spec.pattern, NofM):
        n, m = spec.pattern.n, spec.pattern.m
        return f"{m - n} of every {m} neighbouring weights ({n}:{m}) in the pruned matrices"
    each = (
        "every row of the pruned matrices" if spec.pattern.name == "row" else "the pruned matrices"
    )
    return f"{percent(spec.ratio)} of the weights in {each}"


def _extras(spec: PruneSpec) -> list[str]:
    search = spec.method.search if isinstance(spec.method, CRePE) else None
    found = [
        f"with coefficients searched by {search.name}" if search else "",
        ""
        if isinstance(spec.allocation, Uniform)
        else f"with a ratio per block set by {spec.allocation.name}",
        f"refined by {' and '.join(step.name for step in spec.refinement)}"
        if spec.refinement
        else "",
        "with each block then trained on the dense block's output" if spec.reconstruction else "",
    ]
    return [extra for extra in found if extra]


def printable(text: str) -> str:
    """Return text with every control character but line ends and tabs replaced: HTML cannot hold them."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
        else character
        for character in text
    )
