"""A terminal that shows strangers' text and does not obey it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f\ud800-\udfff]"
)
"""Escape sequences and marks that turn the direction of text; the service's own `text.shown` says the same."""


class Visible(Console):
    """Replaces what a text would do to the terminal; colours and bars are rich's own and stay."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield what is written."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _HIDDEN.sub("\ufffd", text), style, control)
