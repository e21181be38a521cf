"""Parameters and bytes of a model cut to any sizes, without a look at its tensors each time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pruning_core.structure.spans import Sizes, Spans


@dataclass(frozen=True)
class Alike:
    """What tensors that are counted together have in common.

    Attributes:
        parameter: Whether stock transformers counts them.
        in_block: Whether they lie in a block.
        lengths: Of each axis, what cannot be cut and the runs of what can.
        width: Bytes per element.
    """

    parameter: bool
    in_block: bool
    lengths: tuple[tuple[int, Spans], ...]
    width: int


class Counts:
    """Counts the elements of a checkpoint's tensors, those that are alike together.

    Args:
        tensors: Of every tensor, what it has in common with others.
        layers: Blocks of the whole model.
    """

    def __init__(self, tensors: Iterable[Alike], layers: int) -> None:
        self._alike = Counter(tensors)
        self._layers = layers

    def parameters(self, sizes: Sizes) -> int:
        """Return the parameters of the model cut to these sizes."""
        return sum(count for alike, count in self._of(sizes) if alike.parameter)

    def bytes(self, sizes: Sizes) -> int:
        """Return the bytes of its tensors."""
        return sum(count * alike.width for alike, count in self._of(sizes))

    def _of(self, sizes: Sizes) -> list[tuple[Alike, int]]:
        """Return the elements of every kind of tensor, all of one kind together."""
        counts = []
        for alike, number in self._alike.items():
            elements = math.prod(
                fixed + sum(span.each * sizes.of(span.kind) for span in spans)
                for fixed, spans in alike.lengths
            )
            share = number * sizes.layers // self._layers if alike.in_block else number
            counts.append((alike, elements * share))
        return counts
