"""The plots of the report, each drawn only where the report has its figures."""

from __future__ import annotations

from pruning_core.reporting.plots import course, lines
from pruning_core.reporting.plots.bars import comparisons
from pruning_core.reporting.plots.drawing import Plot
from pruning_core.spec.report import Report


def plots(report: Report) -> tuple[Plot, ...]:
    """Return every plot that the report has figures for, in the order of the page."""
    return tuple(
        plot
        for plot in (
            lines.sparsity(report),
            lines.error(report),
            lines.unit_share(report),
            lines.unit_error(report),
            *comparisons(report),
            course.trials(report.search),
            course.ratios(report),
        )
        if plot is not None
    )
