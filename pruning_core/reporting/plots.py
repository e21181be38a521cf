"""The plots of the report, each drawn only where the report has its figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pruning_core.printable import shown
from pruning_core.reporting import formatting, naming, units
from pruning_core.reporting.drawing import DENSE, INK, MARKERS, PRUNED, SERIES, Plot, draw
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.quality import Accuracy, Interval, Score
from pruning_core.spec.report_parts.removal import MatrixReport, UnitReport
from pruning_core.spec.report_parts.search import SearchReport

LINES_HEIGHT = 3.4
LONGEST_LABEL = 22
SHORT_LABEL = 18
"""Characters of a legend's entry, four of which stand abreast."""
WIDEST_LINEAR_SPREAD = 20.0
"""Above this ratio of largest to smallest, small bars vanish: points on a logarithmic axis instead."""
_NARROWEST_SPAN = 0.1
_ROUNDING = 0.005
"""Share by which values differ that only whole weights, rows and units keep from being equal."""
_MARKERS_PER_LINE = 10
_PART = re.compile(r"\[(?P<part>[^\]]+)\]")


@dataclass(frozen=True)
class Row:
    """One task's figure before and after."""

    label: str
    dense: float | None
    pruned: float
    dense_interval: Interval | None
    pruned_interval: Interval | None
    chance: float | None = None
    """What guessing reaches."""

    @property
    def values(self) -> tuple[float, ...]:
        """Those that were measured."""
        return tuple(value for value in (self.dense, self.pruned) if value is not None)


Lines = dict[str, dict[int, float]]
"""A value per block, for each kind of matrix."""


def plots(report: Report) -> tuple[Plot, ...]:
    """Return every plot that the report has figures for, in the order of the page."""
    return tuple(
        plot
        for plot in (
            _sparsity(report),
            _error(report),
            _unit_share(report),
            _unit_error(report),
            *_comparisons(report),
            _trials(report.search),
            _ratios(report),
        )
        if plot is not None
    )


def kind_of(name: str) -> str:
    """Return what a matrix is called in every block: `q_proj`, or `c_attn[q]` for a part of a fused one."""
    part = _PART.search(name)
    plain = _PART.sub("", name).removesuffix(".weight")
    return plain.rpartition(".")[2] + (part.group() if part else "")


def by_kind(report: Report, value: Callable[[MatrixReport], float | None]) -> Lines:
    """Return the mean over the matrices of each kind in each block; more than one are experts."""
    return _means(
        (kind_of(matrix.name), block.block, value(matrix))
        for block in report.blocks
        for matrix in block.matrices
    )


def units_by_kind(report: Report, value: Callable[[UnitReport], float | None]) -> Lines:
    """Return the mean over the units of each kind in each block; a kind is more than once there where experts are."""
    return _means(
        (units.NAMES[unit.kind], block.block, value(unit))
        for block in report.blocks
        for unit in block.units
    )


def _means(values: Iterable[tuple[str, int, float | None]]) -> Lines:
    found: dict[str, dict[int, list[float]]] = {}
    for kind, block, measured in values:
        if measured is not None:
            found.setdefault(kind, {}).setdefault(block, []).append(measured)
    return {
        kind: {block: fmean(values) for block, values in blocks.items()}
        for kind, blocks in found.items()
    }


def _sparsity(report: Report) -> Plot | None:
    """Draw what each matrix loses, where that differs between blocks."""
    lines = by_kind(report, lambda matrix: 100 * matrix.sparsity)
    if all(_flat(line.values()) for line in lines.values()):
        return None
    label = "weights removed (%)"
    return _lines("sparsity", "Sparsity by block", label, lines, unit=" %")


def _error(report: Report) -> Plot | None:
    lines = by_kind(report, lambda matrix: matrix.error)
    label = "relative output error"
    return _lines("error", "Relative output error by block", label, lines)


def _unit_share(report: Report) -> Plot | None:
    """Draw what each block loses, where that differs."""
    lines = units_by_kind(report, lambda unit: 100 * unit.removed / unit.of)
    if all(_flat(line.values()) for line in lines.values()):
        return None
    done = "removed" if units.shrinks(report.spec) else "zeroed"
    return _lines("unit-share", f"Units {done} by block", f"units {done} (%)", lines, unit=" %")


def _unit_error(report: Report) -> Plot | None:
    """Draw the error of what reads the units, and what it was before that was fitted."""
    before = units_by_kind(report, lambda unit: unit.error_before_refit)
    lines = units_by_kind(report, lambda unit: unit.error)
    lines |= {f"{kind}, before the fit": line for kind, line in before.items()}
    return _lines("unit-error", "Relative output error by block", "relative output error", lines)


def _flat(values: Iterable[float]) -> bool:
    """Tell whether a drawing would show nothing: no value, one, or all the same but for rounding."""
    found = [*values]
    largest = max(map(abs, found), default=0.0)
    return not found or max(found) - min(found) <= _ROUNDING * largest


def _lines(name: str, title: str, label: str, lines: Lines, *, unit: str = "") -> Plot | None:
    if _flat(value for line in lines.values() for value in line.values()):
        return None
    abreast = 4 if max(map(len, lines)) <= SHORT_LABEL else 2

    def paint(axes: Axes) -> None:
        for number, (kind, line) in enumerate(lines.items()):
            axes.plot(list(line), list(line.values()), label=kind, **_look(number, len(line)))
        axes.set_xlabel("block")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _widen(axes)
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


def _widen(axes: Axes) -> None:
    """Keep rounding from looking like a landscape."""
    low, high = axes.get_ylim()
    span = _NARROWEST_SPAN * max(abs(low), abs(high))
    if high - low < span:
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)


def _said_of(label: str, lines: Lines, unit: str) -> str:
    found = [(value, kind, block) for kind, line in lines.items() for block, value in line.items()]
    low, high = min(found), max(found)
    kinds = f"Line plot of {label} over blocks for {', '.join(lines)}."
    if low[0] == high[0]:
        return f"{kinds} It is {formatting.number(low[0])}{unit} everywhere."
    return (
        f"{kinds} Lowest: {formatting.number(low[0])}{unit} ({low[1]} of block {low[2]}); "
        f"highest: {formatting.number(high[0])}{unit} ({high[1]} of block {high[2]})."
    )


def _comparisons(report: Report) -> Iterator[Plot | None]:
    perplexity = "perplexity (lower is better)"
    rows = [
        Row(
            naming.file_name(report, one.task),
            one.dense,
            one.pruned,
            one.dense_interval,
            one.pruned_interval,
        )
        for one in report.perplexity
    ]
    yield _bars("perplexity", "Perplexity before and after", perplexity, rows)
    scores: tuple[tuple[str, str, Callable[[Accuracy], Score]], ...] = (
        ("acc", "Accuracy before and after", lambda one: one.acc),
        ("acc-norm", "Accuracy by length-normalised likelihood", lambda one: one.acc_norm),
    )
    for name, title, chosen in scores:
        rows = [
            _row_of_score(naming.file_name(report, one.task), chosen(one), one.chance)
            for one in report.accuracy
        ]
        yield _bars(name, title, "right answers (%)", rows, end=100)


def _row_of_score(task: str, score: Score, chance: float) -> Row:
    dense = None if score.dense is None else 100 * score.dense
    return Row(
        task,
        dense,
        100 * score.pruned,
        _times_100(score.dense_interval),
        _times_100(score.pruned_interval),
        100 * chance,
    )


def _times_100(interval: Interval | None) -> Interval | None:
    return interval and Interval(low=100 * interval.low, high=100 * interval.high)


def _bars(
    name: str, title: str, label: str, rows: Sequence[Row], *, end: float | None = None
) -> Plot | None:
    if _flat(value for row in rows for value in row.values):
        return None
    values = [value for row in rows for value in row.values]
    logarithmic = end is None and max(values) > WIDEST_LINEAR_SPREAD * min(values) > 0

    def paint(axes: Axes) -> None:
        if logarithmic:
            axes.set_xscale("log")
            _logarithmic(axes.xaxis, values)
        for number, row in enumerate(rows):
            _pair(axes, number, row, points=logarithmic)
            _chance(axes, number, row)
        axes.set_yticks(range(len(rows)), [_shortened(row.label) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(label + (", logarithmic" if logarithmic else ""))
        axes.grid(axis="y", visible=False)
        if end is not None:
            axes.set_xlim(0, end)
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axes.figure.legend(once.values(), once, loc="outside lower center", ncols=3)

    said = "; ".join(_said_of_row(row) for row in rows)
    alternative = f"{label.capitalize()} of the dense and the pruned model, with 95 % intervals where there are any. {said}."
    return draw(name, title, alternative, 1.3 + 0.5 * len(rows), paint)


def _logarithmic(axis: Axis, values: Sequence[float]) -> None:
    """Give an axis few ticks, with numbers as they are read, and several within a decade where there are few decades."""
    few = max(values) < 100 * min(values)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: formatting.given(value)))
    axis.set_minor_formatter(NullFormatter())


def _pair(axes: Axes, number: int, row: Row, *, points: bool) -> None:
    for offset, value, interval, colour, label in (
        (-0.19, row.dense, row.dense_interval, DENSE, "dense"),
        (0.19, row.pruned, row.pruned_interval, PRUNED, "pruned"),
    ):
        if value is None:
            continue
        place = number + (offset if row.dense is not None else 0.0)
        if points:
            axes.plot([value], [place], "o", color=colour, label=label)
        else:
            axes.barh([place], [value], height=0.36, color=colour, label=label)
        if interval is not None:
            ends = [[max(0.0, value - interval.low)], [max(0.0, interval.high - value)]]
            axes.errorbar(
                [value],
                [place],
                xerr=ends,
                fmt="none",
                color=INK,
                ecolor=INK,
                capsize=3,
                elinewidth=1.2,
            )


def _chance(axes: Axes, number: int, row: Row) -> None:
    if row.chance is not None:
        ends = [number - 0.45], [number + 0.45]
        look: dict[str, Any] = {"color": INK, "linewidth": 1.4, "linestyle": (0, (2, 1.5))}
        axes.vlines([row.chance], *ends, label="guessing", **look)


def _shortened(label: str) -> str:
    plain = shown(label).replace("\n", " ").replace("$", r"\$")
    return plain if len(plain) <= LONGEST_LABEL else f"{plain[: LONGEST_LABEL - 1]}…"


def _said_of_row(row: Row) -> str:
    before = "" if row.dense is None else f"dense {formatting.number(row.dense)}, "
    guessed = "" if row.chance is None else f", guessing {formatting.number(row.chance)}"
    return f"{row.label}: {before}pruned {formatting.number(row.pruned)}{guessed}"


def _trials(search: SearchReport | None) -> Plot | None:
    values = [trial.value for trial in search.trials] if search is not None else []
    if _flat(values):
        return None
    best = [min(values[: number + 1]) for number in range(len(values))]

    def paint(axes: Axes) -> None:
        numbers = range(1, len(values) + 1)
        axes.plot(numbers, values, "o", color=SERIES[0], markersize=3.5, label="candidate")
        axes.step(numbers, best, where="post", color=SERIES[1], linewidth=1.6, label="best so far")
        if max(values) > WIDEST_LINEAR_SPREAD * min(values) > 0:
            axes.set_yscale("log")
            _logarithmic(axes.yaxis, values)
        axes.set_xlabel("candidate, in the order tried")
        axes.set_ylabel("minimised value")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside lower center", ncols=2)

    alternative = (
        f"Values of {len(values)} candidates in the order tried: the first {formatting.number(values[0])}, "
        f"the best {formatting.number(min(values))} (number {values.index(min(values)) + 1})."
    )
    return draw("trials", "Candidates of the search", alternative, LINES_HEIGHT, paint)


def _ratios(report: Report) -> Plot | None:
    shares = [100 * ratio for ratio in report.ratios or ()]
    if _flat(shares):
        return None
    target = 100 * report.spec.ratio

    def paint(axes: Axes) -> None:
        axes.bar(range(len(shares)), shares, width=0.8, color=SERIES[0], label="block")
        axes.axhline(target, color=INK, linewidth=1.2, linestyle="--", label="the model as a whole")
        axes.set_xlabel("block")
        axes.set_ylabel("weights removed (%)")
        axes.set_ylim(0, min(100.0, 1.1 * max(*shares, target)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        axes.figure.legend(loc="outside lower center", ncols=2)

    low, high = min(shares), max(shares)
    alternative = (
        f"Bars of the share removed from each of {len(shares)} blocks, set by {report.spec.allocation.name}: "
        f"lowest {formatting.number(low)} % (block {shares.index(low)}), "
        f"highest {formatting.number(high)} % (block {shares.index(high)}), {formatting.number(target)} % of the model as a whole."
    )
    return draw("ratios", "Ratio per block", alternative, LINES_HEIGHT, paint)


def recovery(report: RecoveryReport) -> Plot | None:
    """Draw training and validation loss over the steps of fine-tuning, and what was kept."""
    if not report.history:
        return None
    steps = [point.step for point in report.history]
    training = [point.training_loss for point in report.history]
    validation = [report.loss_before, *(point.validation_loss for point in report.history)]
    if _flat([*training, *validation]):
        return None

    def paint(axes: Axes) -> None:
        look: dict[str, Any] = {"markersize": 4.5, "linewidth": 1.4}
        axes.plot(steps, training, color=SERIES[0], marker=MARKERS[0], label="training", **look)
        axes.plot(
            [0, *steps], validation, color=SERIES[1], marker=MARKERS[1], label="validation", **look
        )
        axes.axvline(report.best_step, color=INK, linewidth=1.2, linestyle="--", label="kept")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (lower is better)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside lower center", ncols=3)

    alternative = (
        f"Line plot of training and validation loss over {report.steps:,} steps. Validation loss: "
        f"{formatting.number(report.loss_before)} before, {formatting.number(min(validation))} at its lowest, "
        f"{formatting.number(validation[-1])} at the end; the weights of step {report.best_step:,} were kept."
    )
    return draw("recovery", "Loss while fine-tuning", alternative, LINES_HEIGHT, paint)
