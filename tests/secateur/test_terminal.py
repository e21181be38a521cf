"""What a server says is shown on a terminal, which does not obey it."""

from __future__ import annotations

import io

import pytest
from rich.table import Table
from rich.text import Text

from secateur.terminal import Visible

HOSTILE = "\x1b]0;title\x07 \x1b[2J \u202egpj.exe \x9b1m \u2066 \U000e0041"


@pytest.mark.parametrize("wrapped", ["text", "table", "plain"])
def test_hidden_characters_are_shown_and_colours_stay(wrapped: str) -> None:
    file = io.StringIO()
    console = Visible(file=file, force_terminal=True, color_system="standard", width=200)
    table = Table("column")
    table.add_row(HOSTILE)
    shown = {"text": Text(HOSTILE, style="red"), "table": table, "plain": HOSTILE}[wrapped]
    console.print(shown, markup=False)
    written = file.getvalue()
    assert "\ufffd" in written
    assert not {"\x07", "\x9b", "\u202e", "\u2066", "\U000e0041"} & set(written)
    assert "\x1b]" not in written
    assert "\x1b[2J" not in written
    assert wrapped != "text" or "\x1b[31m" in written
