"""Perplexity and accuracy before and after, as bars with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from pruning_core.printable import shown
from pruning_core.reporting import formatting, naming
from pruning_core.reporting.plots.drawing import DENSE, INK, PRUNED, Plot, draw
from pruning_core.reporting.plots.scales import WIDEST_LINEAR_SPREAD, is_flat, logarithmic_axis
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.quality import Accuracy, Interval, Score

LONGEST_LABEL = 22


@dataclass(frozen=True)
class BeforeAfter:
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


def comparisons(report: Report) -> Iterator[Plot | None]:
    """Yield a plot of perplexity and one of each accuracy, None where it would show nothing."""
    perplexity = "perplexity (lower is better)"
    rows = [
        BeforeAfter(
            naming.file_name(report, text.task),
            text.dense,
            text.pruned,
            text.dense_interval,
            text.pruned_interval,
        )
        for text in report.perplexity
    ]
    yield _bars("perplexity", "Perplexity before and after", perplexity, rows)
    scores: tuple[tuple[str, str, Callable[[Accuracy], Score]], ...] = (
        ("acc", "Accuracy before and after", lambda task: task.acc),
        ("acc-norm", "Accuracy by length-normalised likelihood", lambda task: task.acc_norm),
    )
    for name, title, chosen in scores:
        rows = [
            _row_of_score(naming.file_name(report, task.task), chosen(task), task.chance)
            for task in report.accuracy
        ]
        yield _bars(name, title, "right answers (%)", rows, end=100)


def _row_of_score(task: str, score: Score, chance: float) -> BeforeAfter:
    dense = None if score.dense is None else 100 * score.dense
    return BeforeAfter(
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
    name: str, title: str, label: str, rows: Sequence[BeforeAfter], *, end: float | None = None
) -> Plot | None:
    if is_flat(value for row in rows for value in row.values):
        return None
    values = [value for row in rows for value in row.values]
    logarithmic = end is None and max(values) > WIDEST_LINEAR_SPREAD * min(values) > 0

    def paint(axes: Axes) -> None:
        if logarithmic:
            axes.set_xscale("log")
            logarithmic_axis(axes.xaxis, values)
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


def _pair(axes: Axes, number: int, row: BeforeAfter, *, points: bool) -> None:
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


def _chance(axes: Axes, number: int, row: BeforeAfter) -> None:
    if row.chance is not None:
        ends = [number - 0.45], [number + 0.45]
        look: dict[str, Any] = {"color": INK, "linewidth": 1.4, "linestyle": (0, (2, 1.5))}
        axes.vlines([row.chance], *ends, label="guessing", **look)


def _shortened(label: str) -> str:
    plain = shown(label).replace("\n", " ").replace("$", r"\$")
    return plain if len(plain) <= LONGEST_LABEL else f"{plain[: LONGEST_LABEL - 1]}…"


def _said_of_row(row: BeforeAfter) -> str:
    before = "" if row.dense is None else f"dense {formatting.number(row.dense)}, "
    guessed = "" if row.chance is None else f", guessing {formatting.number(row.chance)}"
    return f"{row.label}: {before}pruned {formatting.number(row.pruned)}{guessed}"
