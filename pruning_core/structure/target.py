"""The sizes of a model that come nearest to what a job asks for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from pruning_core.errors import SizeUnreachable
from pruning_core.spec.patterns import removed_count
from pruning_core.spec.prune import Budget
from pruning_core.spec.unit_method import UNIT_NAMES, UnitKind
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.spans import Sizes

SLACK = 0.01
"""A target is out of reach where the nearest legal size misses it by more than this share beyond the last one."""


@dataclass(frozen=True)
class Target:
    """How large the result shall be.

    Attributes:
        cutter: What can be cut.
        size: Parameters or bytes, as `weigh` counts them.
        in_bytes: Whether bytes count.
        pointer: The field that asks for it.
    """

    cutter: Cutter
    size: int
    in_bytes: bool = False
    pointer: str = "/prune/sparsity"

    @classmethod
    def of(cls, cutter: Cutter, sparsity: float | None, budget: Budget | None) -> Target:
        """Return the target of a specification that names a share or a budget."""
        whole = cutter.layout.parameters(cutter.layout.sizes)
        if budget is None:
            assert sparsity is not None
            return cls(cutter, whole - removed_count(sparsity, whole))
        if budget.bytes is not None:
            return cls(cutter, budget.bytes, in_bytes=True, pointer="/prune/budget/bytes")
        assert budget.parameters is not None
        return cls(cutter, budget.parameters, pointer="/prune/budget/parameters")

    def weigh(self, sizes: Sizes) -> int:
        """Return the parameters or bytes of a model of these sizes."""
        layout = self.cutter.layout
        return layout.bytes(sizes) if self.in_bytes else layout.parameters(sizes)

    def solve(self, kinds: Sequence[UnitKind], start: Sizes | None = None) -> Sizes:
        """Return the legal sizes whose model is nearest to the target, larger where two are equally near.

        Key-value groups and neurons lose one common share, as far as groups are whole; neurons make up the rest.

        Args:
            kinds: One kind, or both inner kinds, all of which can go.
            start: Sizes that other decisions left; None for the whole model.

        Raises:
            SizeUnreachable: the target asks for no removal, or for more than these units hold.
        """
        sizes = start or self.cutter.layout.sizes
        self._check_reach(kinds, sizes)
        if len(kinds) == 1:
            return self._nearest(kinds[0], sizes)
        return self._at_one_share(sizes)

    def with_groups(self, groups: int, sizes: Sizes) -> Sizes:
        """Return the sizes with this number of key-value groups kept, and neurons for the rest."""
        return self._nearest("neurons", replace(sizes, kv_groups=groups), all_too=True)

    def _miss(self, sizes: Sizes) -> int:
        return abs(self.weigh(sizes) - self.size)

    def _nearest(self, kind: UnitKind, sizes: Sizes, *, all_too: bool = False) -> Sizes:
        legal = self.cutter.legal(kind)
        whole = (sizes.of(kind),) if all_too else ()
        # The weight rises with the size: the target lies between two neighbours.
        above = bisect_left(legal, self.size, key=lambda size: self.weigh(_with(sizes, kind, size)))
        near = (*legal[max(above - 1, 0) : above + 1], *whole)
        return min((_with(sizes, kind, size) for size in reversed(near)), key=self._miss)

    def _at_one_share(self, sizes: Sizes) -> Sizes:
        """Return the sizes nearest to the common share of groups, of those with which neurons reach the target."""
        legal = (*self.cutter.legal("kv_groups"), sizes.kv_groups)
        options = [self.with_groups(count, sizes) for count in reversed(legal)]
        near = [option for option in options if self._miss(option) <= SLACK * self.weigh(sizes)]
        if not near:
            return min(options, key=self._miss)
        wanted = (1 - self._common_share(sizes)) * sizes.kv_groups
        return min(near, key=lambda option: abs(option.kv_groups - wanted))

    def _common_share(self, sizes: Sizes) -> float:
        """Return the share of groups and neurons that reaches the target, were they divisible."""
        neurons = self.weigh(sizes) - self.weigh(replace(sizes, neurons=0))
        groups = self.weigh(sizes) - self.weigh(replace(sizes, kv_groups=0))
        return (self.weigh(sizes) - self.size) / (neurons + groups)

    def _check_reach(self, kinds: Sequence[UnitKind], sizes: Sizes) -> None:
        whole, least = self.weigh(sizes), sizes
        for kind in kinds:
            least = _with(least, kind, self.cutter.legal(kind)[0])
        steps = (_with(sizes, kind, self.cutter.legal(kind)[-1]) for kind in kinds)
        first, smallest = max(map(self.weigh, steps)), self.weigh(least)
        if self.size >= whole:
            self._refuse(kinds, "nothing would have to go", sizes)
        if self.size < smallest - SLACK * whole:
            self._refuse(kinds, f"at most {1 - smallest / whole:.1%} can go", sizes)
        if self.size > (whole + first) / 2:
            self._refuse(kinds, f"the smallest step removes {1 - first / whole:.2%}", sizes)

    def _refuse(self, kinds: Sequence[UnitKind], why: str, sizes: Sizes) -> NoReturn:
        whole = self.weigh(sizes)
        asked = f"{self.size:,} {'bytes' if self.in_bytes else 'parameters'}"
        names = " and ".join(UNIT_NAMES[kind] for kind in kinds)
        raise SizeUnreachable(
            f"Removing {names} makes no model of {asked} ({self.size / whole:.1%} of {whole:,}): {why}.",
            suggestions=(
                "ask for another amount: GET /v1/models/inspect lists the sizes that can be had",
                "choose a method that removes other units",
                "use a smaller `multiple_of`",
            ),
            pointer=self.pointer,
        )


def _with(sizes: Sizes, kind: UnitKind, size: int) -> Sizes:
    return replace(sizes, **{kind: size})
