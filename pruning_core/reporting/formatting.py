"""Numbers and verdicts as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from pruning_core.reporting import units
from pruning_core.reporting.units import Cut
from pruning_core.spec.composition import Refinement
from pruning_core.spec.patterns import NofM
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.quality import GateReport, Interval, Perplexity, Score
from pruning_core.spec.report_parts.speed import SpeedReport

DIGITS = 4
CHANCE = 0.05
"""A p-value from here on is called chance: the complement of the intervals' 95 %."""
_SMALLEST, _LARGEST = 1e-4, 1e15
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
WITHIN_CHANCE = "within chance"
BEYOND_CHANCE = "beyond chance"
UNRELIABLE = "not reliably measured"
SAME = "the same"
SAME_SPEED = 1.03
"""Two copies of one model differ by a little less in speed, by where they lie in memory."""
Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")

_NAMED = 20
"""Files of a list; of longer ones the rest is counted."""


def tied(text: str) -> str:
    """Return text that no line may break."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def number(value: float, digits: int = DIGITS) -> str:
    """Return some significant digits, thousands apart; powers of ten only where digits would mislead."""
    size = abs(value)
    if size == 0:
        return "0"
    if not _SMALLEST <= size < _LARGEST:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def short(value: float) -> str:
    """Return three significant digits, for a cell among many."""
    return number(value, 3)


def given(value: float | None) -> str:
    """Return a number that someone set, as they set it; nothing where they did not."""
    return "" if value is None else f"{value:.{DIGITS}g}"


def percent(share: float) -> str:
    """Return a share as per cent, without digits that say nothing."""
    return tied(f"{100 * share:.{DIGITS}g} %")


def about(share: float) -> str:
    """Return a share as per cent, with as many digits as a sentence bears."""
    return tied(f"{100 * share:.3g} %")


def listed(parts: Sequence[str]) -> str:
    """Return an enumeration: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def left_behind(report: Report) -> str:
    """Return what of the dense model's folder is not in the result, the first names of many."""
    names = list(report.left_behind)
    more = len(names) - _NAMED
    return listed([*names[:_NAMED], f"{more} more"] if more > 0 else names)


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


def moment(when: datetime) -> str:
    """Return a point in time, to the minute."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


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
    if score.dense is None:
        return ""
    if score.p_value is None:
        return "too few questions to tell"
    if score.p_value >= CHANCE:
        return WITHIN_CHANCE
    return f"{'better' if score.pruned > score.dense else 'worse'}, {BEYOND_CHANCE}"


def judged_ratio(measured: Perplexity) -> str:
    """Say whether a perplexity changed, by the interval of its ratio."""
    if measured.ratio is None:
        return ""
    interval = measured.ratio_interval
    if interval is None:
        return f"too few {measured.resampled} to tell"
    if interval.low <= 1 <= interval.high:
        return WITHIN_CHANCE
    return f"{'worse' if interval.low > 1 else 'better'}, {BEYOND_CHANCE}"


def judged_speed(speed: SpeedReport, phase: Phase) -> str:
    """Say whether a phase became faster; nothing where the two models were not timed in turn."""
    ratio = speed.ratios.get(phase)
    if ratio is None:
        return ""
    if speed.doubts or ratio.interval is None:
        return UNRELIABLE
    if ratio.interval.low > SAME_SPEED:
        return "faster"
    return "slower" if ratio.interval.high < 1 / SAME_SPEED else SAME


def judged_gate(gate: GateReport) -> str:
    """Say whether a gate was met, and where the interval of its figure lies on both sides of a bound."""
    result = "passed" if gate.passed else "missed"
    interval = gate.interval
    if interval is None:
        return result
    bounds = (bound for bound in (gate.min, gate.max) if bound is not None)
    close = any(interval.low <= bound <= interval.high for bound in bounds)
    return f"{result}, {WITHIN_CHANCE}" if close else result


def amount(report: Report) -> str:
    """Return how much is removed, and within what."""
    spec = report.spec
    if spec.units is not None:
        done = "" if units.shrinks(spec) else " zeroed"
        return f"{about(report.sparsity)} of the parameters{done} ({_asked(spec)})"
    if isinstance(spec.pattern, NofM):
        return f"{spec.pattern.n}:{spec.pattern.m}, {percent(spec.ratio)} removed"
    scope = "row" if spec.pattern.name == "row" else "matrix"
    return f"{percent(spec.ratio)}, compared within each {scope}"


def _asked(spec: PruneSpec) -> str:
    if spec.sparsity is not None:
        return f"{percent(spec.sparsity)} asked for"
    if spec.budget is None:
        return "as the method's threshold decides"
    if spec.budget.bytes is not None:
        return f"a model of {tied(f'{spec.budget.bytes:,} bytes')} asked for"
    return f"a model of {spec.budget.parameters:,} parameters asked for"


def what_was_done(report: Report) -> str:
    """Return one sentence: method, amount, model, and what came on top."""
    spec = report.spec
    model = f"a {report.family} model ({report.architecture})"
    removed = f"removed {_removed(spec)} of {model}" if spec.units is None else _cut(report, model)
    return f"{', '.join((f'{spec.method.name} {removed}', *_extras(report)))}."


def _cut(report: Report, model: str) -> str:
    """Return what became of a model that lost whole units."""
    done = "removed" if units.shrinks(report.spec) else "zeroed"
    sentence = f"{done} {about(report.sparsity)} of the parameters of {model}"
    parts = listed(_parts(report))
    return f"{sentence}: {parts}" if parts else sentence


def _parts(report: Report) -> list[str]:
    """Return what went of each kind, those of the same blocks together."""
    by_place: dict[str, list[str]] = {}
    for cut in units.cuts(report):
        by_place.setdefault(_place(report, cut), []).append(_share_of(cut))
    parts = [listed(kinds) + place for place, kinds in by_place.items()]
    if units.single_rows(report.spec):
        parts.append("quiet rows and columns of single matrices")
    return parts


def _share_of(cut: Cut) -> str:
    name = units.NAMES[cut.kind]
    if cut.uniform and cut.kind in units.FEW:
        return f"{cut.removed:,} of {cut.of:,} {name}"
    return f"{about(cut.removed / cut.of)} of the {name}"


def _place(report: Report, cut: Cut) -> str:
    """Return which blocks lose units of a kind; nothing where they are the whole model's."""
    if cut.kind == "hidden" and units.own_masks(report.spec):
        return ", others in every block"
    if cut.blocks is None:
        return ""
    if cut.blocks < len(report.blocks):
        return f" of {cut.blocks:,} of {len(report.blocks):,} blocks"
    return " of every block" if cut.uniform else " of all blocks together"


def _removed(spec: PruneSpec) -> str:
    if isinstance(spec.pattern, NofM):
        n, m = spec.pattern.n, spec.pattern.m
        return f"{m - n} of every {m} neighbouring weights ({n}:{m}) in the pruned matrices"
    each = (
        "every row of the pruned matrices" if spec.pattern.name == "row" else "the pruned matrices"
    )
    return f"{percent(spec.ratio)} of the weights in {each}"


def _extras(report: Report) -> list[str]:
    spec = report.spec
    extras = [
        f"with coefficients searched by {spec.search.name}" if spec.search else "",
        f"with a ratio per block set by {spec.allocation.name}" if spec.allocation.varies else "",
        "with every module fitted to the dense model's outputs (reconstruct)"
        if spec.fits_modules
        else "",
        _refined(spec.refinement),
        "with each block then trained on the dense block's output" if spec.reconstruction else "",
        "" if report.recovery is None else _tuned(report.recovery),
    ]
    return [extra for extra in extras if extra]


def _refined(steps: Sequence[Refinement]) -> str:
    if any(step.fits_read_outs for step in steps):
        return "with what is left of the read-outs fitted to that (refit)"
    return f"refined by {' and '.join(step.name for step in steps)}" if steps else ""


def _tuned(recovery: RecoveryReport) -> str:
    gain = "" if recovery.best_step else " without gain"
    return f"then fine-tuned{gain} ({recovery.method}, {counted(recovery.steps, 'step')})"


def counted(count: int, noun: str) -> str:
    """Return a number and what it counts, in the plural but for one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
