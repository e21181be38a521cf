"""Figures of the report as a value per block, for each kind of matrix or unit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from statistics import fmean

from pruning_core.reporting import units
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.removal import MatrixReport, UnitReport

_PART = re.compile(r"\[(?P<part>[^\]]+)\]")
Lines = dict[str, dict[int, float]]
"""A value per block, for each kind of matrix."""


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
    measurements: dict[str, dict[int, list[float]]] = {}
    for kind, block, measured in values:
        if measured is not None:
            measurements.setdefault(kind, {}).setdefault(block, []).append(measured)
    return {
        kind: {block: fmean(values) for block, values in blocks.items()}
        for kind, blocks in measurements.items()
    }
