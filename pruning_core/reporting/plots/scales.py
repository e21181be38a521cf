"""Whether figures are worth a drawing, and the scales of its axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pruning_core.reporting import formatting

LINES_HEIGHT = 3.4
WIDEST_LINEAR_SPREAD = 20.0
"""Above this ratio of largest to smallest, small bars vanish: points on a logarithmic axis instead."""
_ROUNDING = 0.005
"""Share by which values differ that only whole weights, rows and units keep from being equal."""
_NARROWEST_SPAN = 0.1


def is_flat(values: Iterable[float]) -> bool:
    """Tell whether a drawing would show nothing: no value, one, or all the same but for rounding."""
    known = [*values]
    largest = max(map(abs, known), default=0.0)
    return not known or max(known) - min(known) <= _ROUNDING * largest


def widen(axes: Axes) -> None:
    """Keep rounding from looking like a landscape."""
    low, high = axes.get_ylim()
    span = _NARROWEST_SPAN * max(abs(low), abs(high))
    if high - low < span:
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)


def logarithmic_axis(axis: Axis, values: Sequence[float]) -> None:
    """Give an axis few ticks, with numbers as they are read, and several within a decade where there are few decades."""
    few = max(values) < 100 * min(values)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: formatting.given(value)))
    axis.set_minor_formatter(NullFormatter())
