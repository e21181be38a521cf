"""What the page is made of: tables, quotes, folded parts, and the sections that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pruning_core.reporting.plots.drawing import Plot

NOT_MEASURED = "n/a"


@dataclass(frozen=True)
class Table:
    """Columns without a single entry are left out; the first column heads its rows."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_text: bool = False
    """Left-aligned throughout; else figures, right-aligned after the first column."""
    shades: tuple[tuple[int, ...], ...] = ()
    """Of every cell, from 0 for none to 5; empty for a table without."""


@dataclass(frozen=True)
class Quote:
    """Text that a model wrote."""

    title: str
    text: str


@dataclass(frozen=True)
class Folded:
    """Shown when opened."""

    summary: str
    table: Table | None = None
    text: str | None = None


@dataclass(frozen=True)
class Section:
    """One heading and what stands below it."""

    anchor: str
    heading: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    quotes: tuple[Quote, ...] = ()
    folded: tuple[Folded, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the report has nothing for it."""
        return not (self.tables or self.plots or self.quotes or self.folded)


def table_of(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, is_text: bool = False
) -> Iterator[Table]:
    """Yield the table without its empty columns; nothing where it has no rows."""
    if not rows:
        return
    kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    yield Table(
        caption,
        tuple(columns[index] for index in kept),
        tuple(tuple(row[index] or NOT_MEASURED for index in kept) for row in rows),
        is_text=is_text,
    )


def filled(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the rows that say something."""
    return [row for row in rows if row[1]]
