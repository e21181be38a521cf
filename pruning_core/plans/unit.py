"""`UnitPlan`: which units go, as far as that is decided before the walk, and how the walk chooses the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import torch

from pruning_core.plans.low_activation import Masks
from pruning_core.spec.composition import Refit, Ridge
from pruning_core.spec.patterns import Units
from pruning_core.spec.unit_method import UnitKind, UnitMethod
from pruning_core.structure.layout import Layout
from pruning_core.structure.spans import Sizes
from pruning_core.units.candidates import Candidates
from pruning_core.units.unit_groups import UnitGroup

Scores = Callable[[Candidates, Any], torch.Tensor]
Choice = Callable[[Candidates, int, Any], torch.Tensor | None]


@dataclass(frozen=True)
class UnitScore:
    """A method that scores the units of one group.

    Attributes:
        params: The method's parameters.
        needs: Statistics of the read-out's input that it reads.
        input_needs: Statistics of the writers' input.
        score: (group, params) -> importance [size]; the lowest go.
        choose: (group, n, params) -> units that go, or None to go by score.
    """

    params: UnitMethod
    needs: frozenset[str]
    input_needs: frozenset[str]
    score: Scores
    choose: Choice | None

    def drop(self, group: Candidates, n_drop: int) -> torch.Tensor:
        """Return the units that go, int64 ascending; of equal scores the first."""
        chosen = self.choose(group, n_drop, self.params) if self.choose else None
        if chosen is None:
            scores = self.score(group, self.params).double()
            chosen = scores.argsort(stable=True)[:n_drop]
        return chosen.sort().values.to(group.readout.device)


@dataclass(frozen=True)
class UnitPlan:
    """What goes, and what the walk does about it.

    Attributes:
        params: The method's parameters.
        pattern: Mode and rounding.
        layout: Units of the dense checkpoint.
        sizes: How many units are kept.
        score: Chooses units within blocks on the walk; None where all is decided.
        inner: Units that go by block and group name, where that is decided.
        hidden: Residual dimensions that go.
        hidden_by_block: Residual dimensions that single blocks do not read, in `mode: zero`; only readers are zeroed.
        low_activation: Single rows, columns and biases that go, by block and matrix, in `mode: zero`.
        layers: Blocks that go.
        vocabulary: Token ids that stay; None for all.
        refit: How read-outs are fitted to what goes.
        warnings: What the user must know.
    """

    params: UnitMethod
    pattern: Units
    layout: Layout
    sizes: Sizes
    score: UnitScore | None = None
    inner: Mapping[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    hidden: torch.Tensor | None = None
    hidden_by_block: tuple[torch.Tensor, ...] = ()
    low_activation: Mapping[tuple[int, str], Masks] = field(default_factory=dict)
    layers: tuple[int, ...] = ()
    vocabulary: tuple[int, ...] | None = None
    refit: Refit | None = None
    warnings: tuple[str, ...] = ()

    @property
    def removing(self) -> bool:
        """Whether tensors shrink."""
        return self.pattern.mode == "remove"

    @property
    def cut(self) -> tuple[UnitKind, ...]:
        """Kinds of units by which tensors shrink."""
        before, kinds = self.layout.sizes, get_args(UnitKind)
        changed = (kind for kind in kinds if self.sizes.of(kind) != before.of(kind))
        return tuple(changed) if self.removing else ()

    @property
    def renumbers(self) -> bool:
        """Whether tokens get other ids."""
        return self.removing and self.vocabulary is not None

    @property
    def ridge(self) -> Ridge | None:
        """The pull of what is fitted; None where nothing is."""
        return self.refit.ridge if self.refit is not None else self.params.fits_modules

    @property
    def fits_modules(self) -> bool:
        """Whether every module is fitted to the dense model before it is scored."""
        return self.params.fits_modules is not None

    @property
    def follows_dense(self) -> bool:
        """Whether the dense model's states go along."""
        return self.fits_modules or (self.refit is not None and self.refit.target == "dense")

    def n_drop(self, group: UnitGroup, block: int) -> int:
        """Return how many units of a group go; where blocks are spared, the others lose their share."""
        n_drop = group.size - self.sizes.of(group.kind)
        blocks = self.layout.sizes.layers
        touched = self.params.blocks_touched(blocks)
        if len(touched) == blocks:
            return n_drop
        if block not in touched:
            return 0
        return min(group.size - 1, round(n_drop * blocks / len(touched)))

    @property
    def walks_text(self) -> bool:
        """Whether the walk reads calibration text."""
        scored = self.score is not None and bool(self.score.needs | self.score.input_needs)
        return scored or self.ridge is not None or self.params.keeps_means
