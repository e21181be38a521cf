"""What `secateur inspect` shows of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from secateur.models import Axis, Inspection
from secateur.render import facts, out, rows

MAX_LISTED = 8
"""Longer lists of sizes are shown by their ends."""


def show(inspection: Inspection) -> None:
    """Show what a model is, the sizes that it can be cut to, and the methods that can do so."""
    commit = f" at {inspection.commit}" if inspection.commit else ""
    tied = "tied" if inspection.tied_embeddings else "not tied"
    shared = f"{inspection.query_heads_per_group} for each key-value head"
    facts(
        (
            ("model", f"{inspection.ref}{commit}"),
            ("architecture", f"{inspection.architecture} (family {inspection.family})"),
            ("parameters", f"{inspection.parameters:,}"),
            ("bytes", f"{inspection.bytes:,} ({inspection.dtype})"),
            ("blocks", inspection.blocks),
            (
                "query heads",
                f"{inspection.query_heads} of {inspection.head_dim} channels, {shared}",
            ),
            ("embeddings", f"{tied}; windows of at most {inspection.max_positions:,} tokens"),
        )
    )
    out.print()
    columns = ("units", "now", "parameters each", "most that can go", "can be kept")
    rows(columns, (line for axis in inspection.axes for line in _axis_lines(axis)))
    out.print()
    for axis in inspection.axes:
        told = axis.rule if axis.removable else f"none can go: {axis.reason}"
        out.print(Text(f"{axis.title}: {told}"))
    out.print()
    methods = ((m.name, " ".join(m.units) or "none", m.reason or "") for m in inspection.methods)
    rows(("method", "can remove", "cannot"), methods)
    for note in inspection.notes:
        out.print(Text(note))


def _axis_lines(axis: Axis) -> Iterator[Sequence[object]]:
    """Yield a line for every `multiple_of`; those after the first have the sizes alone."""
    each = (axis.title, f"{axis.size:,}", f"{axis.unit_parameters:,}")
    if not axis.removable:
        yield *each, "-", "all"
        return
    sizes = [_kept_text(kept) for kept in axis.kept]
    yield *each, f"{axis.largest_share:.1%}", sizes[0]
    for further in sizes[1:]:
        yield "", "", "", "", further


def _kept_text(kept: Mapping[str, Any]) -> str:
    multiple = "" if kept["multiple_of"] is None else f"multiples of {kept['multiple_of']}: "
    listed = kept["sizes"]
    if listed is None or len(listed) > MAX_LISTED:
        step = f", in steps of {kept['step']:,}" if kept["step"] else f", {kept['count']:,} sizes"
        return f"{multiple}{kept['from']:,} to {kept['to']:,}{step}"
    each = (f"{choice['size']:,} (-{choice['share']:.1%})" for choice in listed)
    return multiple + (", ".join(each) or "none")
