"""What each block loses and how far its outputs move, as lines over the blocks."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pruning_core.reporting import formatting, units
from pruning_core.reporting.by_block import Lines, by_kind, units_by_kind
from pruning_core.reporting.plots.drawing import MARKERS, SERIES, Plot, draw
from pruning_core.reporting.plots.scales import LINES_HEIGHT, is_flat, widen
from pruning_core.spec.report import Report

SHORT_LABEL = 18
"""Characters of a legend's entry, four of which stand abreast."""
_MARKERS_PER_LINE = 10


def sparsity(report: Report) -> Plot | None:
    """Draw what each matrix loses, where that differs between blocks."""
    lines = by_kind(report, lambda matrix: 100 * matrix.sparsity)
    if all(is_flat(line.values()) for line in lines.values()):
        return None
    label = "weights removed (%)"
    return _lines("sparsity", "Sparsity by block", label, lines, unit=" %")


def error(report: Report) -> Plot | None:
    """Draw the error of each matrix's output."""
    lines = by_kind(report, lambda matrix: matrix.error)
    label = "relative output error"
    return _lines("error", "Relative output error by block", label, lines)


def unit_share(report: Report) -> Plot | None:
    """Draw what each block loses, where that differs."""
    lines = units_by_kind(report, lambda unit: 100 * unit.removed / unit.of)
    if all(is_flat(line.values()) for line in lines.values()):
        return None
    done = "removed" if units.shrinks(report.spec) else "zeroed"
    return _lines("unit-share", f"Units {done} by block", f"units {done} (%)", lines, unit=" %")


def unit_error(report: Report) -> Plot | None:
    """Draw the error of what reads the units, and what it was before that was fitted."""
    before = units_by_kind(report, lambda unit: unit.error_before_refit)
    lines = units_by_kind(report, lambda unit: unit.error)
    lines |= {f"{kind}, before the fit": line for kind, line in before.items()}
    return _lines("unit-error", "Relative output error by block", "relative output error", lines)


def _lines(name: str, title: str, label: str, lines: Lines, *, unit: str = "") -> Plot | None:
    if is_flat(value for line in lines.values() for value in line.values()):
        return None
    abreast = 4 if max(map(len, lines)) <= SHORT_LABEL else 2

    def paint(axes: Axes) -> None:
        for number, (kind, line) in enumerate(lines.items()):
            axes.plot(list(line), list(line.values()), label=kind, **_look(number, len(line)))
        axes.set_xlabel("block")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        widen(axes)
        axes.figure.legend(loc="outside lower center", ncols=abreast)

    rows_of_legend = -(-len(lines) // abreast)
    return draw(
        name, title, _said_of(label, lines, unit), LINES_HEIGHT + 0.2 * rows_of_legend, paint
    )


def _look(number: int, points: int) -> dict[str, Any]:
    """Return colour and marker of a line; markers of lines that coincide stand beside each other."""
    step = max(1, points // _MARKERS_PER_LINE)
    return {
        "color": SERIES[number % len(SERIES)],
        "marker": MARKERS[(number + number // len(SERIES)) % len(MARKERS)],
        "markersize": 4.5,
        "linewidth": 1.4,
        "markevery": (number % step, step),
    }


def _said_of(label: str, lines: Lines, unit: str) -> str:
    points = [(value, kind, block) for kind, line in lines.items() for block, value in line.items()]
    low, high = min(points), max(points)
    kinds = f"Line plot of {label} over blocks for {', '.join(lines)}."
    if low[0] == high[0]:
        return f"{kinds} It is {formatting.number(low[0])}{unit} everywhere."
    return (
        f"{kinds} Lowest: {formatting.number(low[0])}{unit} ({low[1]} of block {low[2]}); "
        f"highest: {formatting.number(high[0])}{unit} ({high[1]} of block {high[2]})."
    )
