"""The course of a search and of fine-tuning, and the ratio of each block."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pruning_core.reporting import formatting
from pruning_core.reporting.plots.drawing import INK, MARKERS, SERIES, Plot, draw
from pruning_core.reporting.plots.scales import (
    LINES_HEIGHT,
    WIDEST_LINEAR_SPREAD,
    is_flat,
    logarithmic_axis,
)
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.search import SearchReport


def trials(search: SearchReport | None) -> Plot | None:
    """Draw the value of every candidate of a search, and the best so far."""
    values = [trial.value for trial in search.trials] if search is not None else []
    if is_flat(values):
        return None
    best = [min(values[: number + 1]) for number in range(len(values))]

    def paint(axes: Axes) -> None:
        numbers = range(1, len(values) + 1)
        axes.plot(numbers, values, "o", color=SERIES[0], markersize=3.5, label="candidate")
        axes.step(numbers, best, where="post", color=SERIES[1], linewidth=1.6, label="best so far")
        if max(values) > WIDEST_LINEAR_SPREAD * min(values) > 0:
            axes.set_yscale("log")
            logarithmic_axis(axes.yaxis, values)
        axes.set_xlabel("candidate, in the order tried")
        axes.set_ylabel("minimised value")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside lower center", ncols=2)

    alternative = (
        f"Values of {len(values)} candidates in the order tried: the first {formatting.number(values[0])}, "
        f"the best {formatting.number(min(values))} (number {values.index(min(values)) + 1})."
    )
    return draw("trials", "Candidates of the search", alternative, LINES_HEIGHT, paint)


def ratios(report: Report) -> Plot | None:
    """Draw the share removed from each block, where an allocation decided."""
    shares = [100 * ratio for ratio in report.ratios or ()]
    if is_flat(shares):
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
    if is_flat([*training, *validation]):
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
