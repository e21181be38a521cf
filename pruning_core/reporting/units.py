"""Which units went, kind by kind, as a report has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.removal import UnitReport
from pruning_core.spec.unit_method import UnitKind, UnitMethod

NAMES: dict[UnitKind, str] = {
    "hidden": "residual dimensions",
    "neurons": "neurons",
    "kv_groups": "key-value groups",
    "layers": "blocks",
    "vocabulary": "tokens",
}
WITHIN_BLOCKS: tuple[UnitKind, ...] = ("neurons", "kv_groups")
FEW: tuple[UnitKind, ...] = ("kv_groups", "layers")
"""Kinds of which there are so few that their numbers say more than a share."""


@dataclass(frozen=True)
class Cut:
    """What went of one kind.

    Attributes:
        kind: Of units.
        removed: Units that went: of one block where all that lose any lose the same number, else of all of them.
        of: Units that there were.
        blocks: Blocks that lose any; None where units are the whole model's.
        uniform: Whether those blocks lose the same number.
    """

    kind: UnitKind
    removed: int
    of: int
    blocks: int | None = None
    uniform: bool = True


def shrinks(spec: PruneSpec) -> bool:
    """Return whether units go and the model becomes smaller."""
    return spec.units is not None and spec.units.mode == "remove"


def zeroes(spec: PruneSpec) -> bool:
    """Return whether units become zero and all shapes stay."""
    return spec.units is not None and spec.units.mode == "zero"


def retokenized(report: Report) -> bool:
    """Return whether the result splits text into other tokens than the dense model."""
    return shrinks(report.spec) and any(size.kind == "vocabulary" for size in report.sizes)


def own_masks(spec: PruneSpec) -> bool:
    """Return whether every block loses residual dimensions of its own."""
    return isinstance(spec.method, UnitMethod) and spec.method.masks_by_block


def single_rows(spec: PruneSpec) -> bool:
    """Return whether single rows and columns become zero, which no unit counts."""
    method = spec.method
    return isinstance(method, UnitMethod) and method.zeroes_single_rows and zeroes(spec)


def cuts(report: Report) -> Iterator[Cut]:
    """Yield what went of each kind, as the blocks have it, and where they have nothing, as the sizes do."""
    sizes = {size.kind: size for size in report.sizes}
    for kind in NAMES:
        removals = [
            (block.block, unit)
            for block in report.blocks
            for unit in block.units
            if unit.kind == kind and unit.removed
        ]
        if removals:
            blocks = len({block for block, _ in removals})
            yield _summed(kind, blocks, [unit for _, unit in removals])
        elif kind in sizes:
            before, after = sizes[kind].before, sizes[kind].after
            blocks_all = len(report.blocks) if kind in WITHIN_BLOCKS else None
            yield Cut(kind, before - after, before, blocks_all)


def _summed(kind: UnitKind, blocks: int, units: list[UnitReport]) -> Cut:
    counts = {(unit.removed, unit.of) for unit in units}
    if len(counts) == 1:
        return Cut(kind, *counts.pop(), blocks)
    removed, whole = sum(unit.removed for unit in units), sum(unit.of for unit in units)
    return Cut(kind, removed, whole, blocks, uniform=False)
