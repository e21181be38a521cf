"""Figures of single matrices and units as a table of blocks by kinds, shaded so that hundreds are read at a glance."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from pruning_core.reporting import formatting, units
from pruning_core.reporting.by_block import kind_of
from pruning_core.reporting.elements import NOT_MEASURED, Folded, Table
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.removal import MatrixReport

SHADES = 5
SAME = 0.05
"""Values within so large a share of the largest have no shade."""
LARGEST = 5
"""Matrices that are named for their errors."""
Cells = dict[str, dict[int, list[float]]]
"""Values by kind and block; more than one are experts."""


def matrix_grids(report: Report) -> Iterator[Folded]:
    """Yield the errors of all matrices, and what was removed of them where that differs."""
    errors = _matrices(report, lambda matrix: matrix.error)
    yield from _folded("Relative output error of every matrix", errors, formatting.short)
    removed = _matrices(report, lambda matrix: matrix.sparsity)
    shares = {
        formatting.short(value)
        for line in removed.values()
        for values in line.values()
        for value in values
    }
    if len(shares) > 1:
        yield from _folded("Share removed of every matrix", removed, formatting.about)


def unit_grids(report: Report) -> Iterator[Folded]:
    """Yield the errors of what reads the units, and what they were before the fit."""
    errors: Cells = {}
    for block in report.blocks:
        for unit in block.units:
            name = units.NAMES[unit.kind]
            for kind, value in (
                (name, unit.error),
                (f"{name}, before the fit", unit.error_before_refit),
            ):
                if value is not None:
                    errors.setdefault(kind, {}).setdefault(block.block, []).append(value)
    yield from _folded(
        "Relative output error of the units of every block", errors, formatting.short
    )


def largest_errors(report: Report) -> Iterator[Table]:
    """Yield the matrices whose outputs changed most, where there are more than that."""
    errors = [
        (matrix.error, matrix)
        for block in report.blocks
        for matrix in block.matrices
        if matrix.error is not None
    ]
    if len(errors) <= LARGEST:
        return
    errors.sort(key=lambda pair: -pair[0])
    rows = tuple(
        (
            matrix.name,
            " x ".join(map(str, matrix.shape)),
            formatting.percent(matrix.sparsity),
            formatting.number(error),
        )
        for error, matrix in errors[:LARGEST]
    )
    columns = ("Matrix", "Outputs x inputs", "Removed", "Relative output error")
    yield Table("The largest errors", columns, rows)


def _matrices(report: Report, value: Callable[[MatrixReport], float | None]) -> Cells:
    cells: Cells = {}
    for block in report.blocks:
        for matrix in block.matrices:
            measured = value(matrix)
            if measured is not None:
                cells.setdefault(kind_of(matrix.name), {}).setdefault(block.block, []).append(
                    measured
                )
    return cells


def _folded(caption: str, cells: Cells, shown: Callable[[float], str]) -> Iterator[Folded]:
    count = sum(len(values) for line in cells.values() for values in line.values())
    if count <= 1:
        return
    several = any(len(values) > 1 for line in cells.values() for values in line.values())
    note = ": of experts the mean, and the largest in brackets" if several else ""
    blocks = sorted({block for line in cells.values() for block in line})
    rows = tuple(
        (str(block), *(_cell(line.get(block, ()), shown) for line in cells.values()))
        for block in blocks
    )
    shade = _shading(
        [value for line in cells.values() for values in line.values() for value in values]
    )
    shades = tuple(
        (0, *(shade(max(line[block])) if block in line else 0 for line in cells.values()))
        for block in blocks
    )
    yield Folded(
        f"{caption} ({count:,})", Table(f"{caption}{note}", ("Block", *cells), rows, shades=shades)
    )


def _cell(values: list[float] | tuple[()], shown: Callable[[float], str]) -> str:
    if not values:
        return NOT_MEASURED
    mean = shown(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({shown(max(values))})"


def _shading(values: list[float]) -> Callable[[float], int]:
    """Return what gives a value its shade, by the fifth of all values that it is in; 0 where they hardly differ."""
    ordered = sorted(values)
    if ordered[-1] - ordered[0] < SAME * ordered[-1]:
        return lambda _value: 0
    return lambda value: 1 + SHADES * bisect_left(ordered, value) // len(ordered)
