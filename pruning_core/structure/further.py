"""Tensors beside the causal model that its file holds too: value heads, classification heads, prediction heads.

Stock transformers passes them over, other programs read them: they stay as they are, are cut with what they read, or are
left out, never guessed at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pruning_core.families.base import Axis
from pruning_core.spec.unit_method import UnitKind

Shape = tuple[int, ...]
_NAMES, _HEADS = 12, 24
"""How many names a sentence lists, and how many of their heads where there are more."""
_STAY = "stay as they are"
_KINDS: Mapping[UnitKind, str] = {
    "hidden": "residual dimensions",
    "neurons": "neurons",
    "kv_groups": "key-value groups",
    "vocabulary": "tokens",
}


@dataclass(frozen=True)
class Further:
    """What is known of one such tensor.

    Attributes:
        head: What it is a part of: all parts are treated alike.
        axes: What its axes are made of.
        unclear: Units of which it cannot be told where they lie in the head, or whose number it must share with the
            blocks: when some go, so does the head.
        block: Its number, where it lies in a block after the last one.
    """

    head: str
    axes: tuple[Axis, ...]
    unclear: frozenset[UnitKind]
    block: int | None = None


@dataclass(frozen=True)
class Head:
    """A name that further tensors have in common.

    Attributes:
        name: As the files spell it.
        block: Its number, where it is a block after the last one.
        is_block: It has the matrices of a block.
    """

    name: str
    block: int | None
    is_block: bool


def further(
    shapes: Mapping[str, tuple[Head, Shape]], hidden: int, vocabulary: int
) -> dict[str, Further]:
    """Return what is known of each tensor.

    Args:
        shapes: Head and shape by stored name.
        hidden: Width of the residual stream.
        vocabulary: Number of tokens.
    """
    parts: dict[Head, list[Shape]] = defaultdict(list)
    for head, shape in shapes.values():
        parts[head].append(shape)
    unclear = {head: _unclear(head, part, hidden, vocabulary) for head, part in parts.items()}
    widths: dict[int, Axis] = {vocabulary: "vocabulary", hidden: "hidden"}
    return {
        name: Further(
            head.name, tuple(widths.get(side) for side in shape), unclear[head], head.block
        )
        for name, (head, shape) in shapes.items()
    }


def _unclear(
    head: Head, shapes: Sequence[Shape], hidden: int, vocabulary: int
) -> frozenset[UnitKind]:
    kinds: set[UnitKind] = {"neurons", "kv_groups"} if head.is_block else set()
    made = {vocabulary, *(side for shape in shapes for side in shape[:-1])}
    for shape in shapes:
        if hidden == vocabulary and hidden in shape:
            kinds |= {"hidden", "vocabulary"}
        if not _reads_once(shape, hidden) or _reads_several(shape, hidden, made):
            kinds.add("hidden")
        if shape.count(vocabulary) > 1:
            kinds.add("vocabulary")
    return frozenset(kinds)


def _reads_once(shape: Shape, hidden: int) -> bool:
    """Tell whether at most one axis can be the residual stream, or several side by side.

    A square matrix may lead from the stream into it, or into as many features of its own; [out, in] whose `in` is the
    stream leads into `out` features, however many.
    """
    streams = [place for place, side in enumerate(shape) if side and side % hidden == 0]
    exact = [place for place in streams if shape[place] == hidden]
    return not exact or exact == [len(shape) - 1] or (len(exact) == 1 and exact == streams)


def _reads_several(shape: Shape, hidden: int, made: Collection[int]) -> bool:
    """Tell whether what a tensor reads is as wide as several streams, and nothing of its head makes that many features."""
    several = len(shape) > 1 and shape[-1] > hidden and shape[-1] % hidden == 0
    return several and shape[-1] not in made


def removal_notes(tensors: Mapping[str, Further], cut: Iterable[UnitKind] = ()) -> tuple[str, ...]:
    """Return sentences on what became of them.

    Args:
        tensors: By stored name.
        cut: Kinds of units that went.
    """
    fates = _fates(tensors, set(cut))
    beside = "Tensors beside the model, which stock transformers passes over,"
    return tuple(f"{beside} {fate}: {_listed(tensors, names)}." for fate, names in fates.items())


def inspection_notes(tensors: Mapping[str, Further]) -> tuple[str, ...]:
    """Return sentences on what there is, and on what becomes of it when units go."""
    if not tensors:
        return ()
    first = f"Tensors beside the model, which stock transformers passes over: {_listed(tensors, tensors)}."
    later = (
        f"When {name} go, these {fate}: {_listed(tensors, names)}."
        for kind, name in _KINDS.items()
        for fate, names in _fates(tensors, {kind}).items()
        if fate != _STAY
    )
    return first, *later


def _fates(tensors: Mapping[str, Further], kinds: set[UnitKind]) -> dict[str, set[str]]:
    """Return the names of those that have a fate in common."""
    fates: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        fate = _STAY
        if tensor.unclear & kinds:
            fate = "are left out, for it cannot be told where to cut them"
        elif kinds & set(tensor.axes):
            fate = "are cut alike"
        fates.setdefault(fate, set()).add(name)
    return fates


def _listed(tensors: Mapping[str, Further], names: Iterable[str]) -> str:
    sorted_names = sorted(names)
    if len(sorted_names) <= _NAMES:
        return ", ".join(sorted_names)
    heads = sorted({tensors[name].head for name in sorted_names})
    rest = f" and {len(heads) - _HEADS} more" if len(heads) > _HEADS else ""
    return f"{len(sorted_names)} of {', '.join(heads[:_HEADS])}{rest}"
