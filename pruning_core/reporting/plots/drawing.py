"""Drawing to SVG that can stand in a page: text stays text, colours follow the page's theme, ids stay apart."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 5.9
"""Inches: 425 units of the page, so that text is as large on a phone as two plots abreast on a desk."""
INK, FAINT = "#010101", "#020202"
SERIES = tuple(f"#0{number}0{number}03" for number in range(1, 9))
"""Stand-ins that no real colour equals; the page's style sheet says what they look like in light and dark."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DENSE, PRUNED = SERIES[0], SERIES[1]
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.formatter.useoffset": False,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_ID = re.compile(r' id="([^"]+)"')
_REFERENCE = re.compile(r'(xlink:href="#|url\(#)([^")]+)')


@dataclass(frozen=True)
class Plot:
    """A drawing and what it says, for those who cannot see it."""

    title: str
    svg: str
    alternative: str


def draw(
    name: str, title: str, alternative: str, height: float, paint: Callable[[Axes], None]
) -> Plot:
    """Paint on fresh axes and return the plot.

    Args:
        name: Begins every id within the drawing; once per page.
        title: Stands above the plot.
        alternative: The plot in words.
        height: Inches.
        paint: Draws on the axes.
    """
    output = StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts draw the text, not ours
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure.add_subplot())
        figure.savefig(output, format="svg", transparent=True, metadata=_NO_METADATA)
    return Plot(title, _inline(output.getvalue(), name), alternative)


def _inline(document: str, name: str) -> str:
    """Return the `svg` element alone, in the page's colours, with ids of its own."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| width="[\d.]+pt"| height="[\d.]+pt"', "", svg)
    used = {target for _, target in _REFERENCE.findall(svg)}
    svg = _ID.sub(lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    svg = _REFERENCE.sub(lambda match: f"{match[1]}{name}-{match[2]}", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
