"""Which units can be cut from a model, and which numbers of them stock transformers loads; read from headers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pruning_core.errors import UnitsUnsupported
from pruning_core.spec.patterns import Units
from pruning_core.spec.unit_method import UNIT_NAMES, UnitKind
from pruning_core.structure.layout import Layout
from pruning_core.structure.spans import Sizes


@dataclass(frozen=True)
class Cutter:
    """What can be cut from one model, and how.

    Attributes:
        layout: Of the model.
        pattern: Mode and rounding.
    """

    layout: Layout
    pattern: Units

    def refusal(self, kind: UnitKind) -> str | None:
        """Return why units of this kind cannot go, or None."""
        fixed = self.layout.fixed.get(kind)
        if fixed is not None and self.pattern.mode == "remove":
            return fixed
        if not self.legal(kind):
            return (
                f"there is no smaller number of {UNIT_NAMES[kind]} that stock transformers accepts"
            )
        return None

    def rule(self, kind: UnitKind) -> str:
        """Return what decides which numbers of units may be kept."""
        if self.pattern.mode == "zero":
            return "any number: all shapes stay"
        return self._rules()[kind]

    def legal(self, kind: UnitKind) -> Sequence[int]:
        """Return the numbers of units that may be kept, ascending, without all of them."""
        whole = self.layout.sizes.of(kind)
        if self.pattern.mode == "zero":
            return range(1, whole)
        if kind in self.layout.fixed:
            return ()
        if kind == "kv_groups":
            return tuple(filter(self._loads, range(1, whole)))
        step = self._step(kind)
        return range(step, whole, step)

    def share(self, sizes: Sizes) -> float:
        """Return the share of the model's parameters that goes."""
        return 1 - self.layout.parameters(sizes) / self.layout.parameters(self.layout.sizes)

    def _rules(self) -> dict[UnitKind, str]:
        layout = self.layout
        heads = (
            f"each takes {layout.query_heads_per_group} of the {layout.heads} query heads with it"
        )
        width = "a multiple of `multiple_of`"
        if self._divides:
            refuses = f"{layout.model_type} refuses other sizes"
            heads += f"; their number must divide hidden_size ({layout.sizes.hidden}): {refuses}"
            width += f"; hidden_size must be divisible by num_attention_heads ({layout.heads}): {refuses}"
        return {
            "hidden": width,
            "neurons": "the same in every block, a multiple of `multiple_of`",
            "kv_groups": heads,
            "layers": "any number",
            "vocabulary": "any number; the text and the tokenizer decide which tokens must stay",
        }

    def _step(self, kind: UnitKind) -> int:
        if kind == "neurons":
            return self.pattern.multiple_of
        if kind == "hidden":
            return math.lcm(self.pattern.multiple_of, self.layout.heads if self._divides else 1)
        return 1

    @property
    def _divides(self) -> bool:
        return self.layout.model_type in self.layout.family.heads_divide_width

    def _loads(self, groups: int) -> bool:
        heads = groups * self.layout.query_heads_per_group
        return not self._divides or self.layout.sizes.hidden % heads == 0

    def require(self, kinds: Sequence[UnitKind], method: str) -> tuple[UnitKind, ...]:
        """Return those of the kinds that can go.

        Raises:
            UnitsUnsupported: none can, or the only one asked for cannot.
        """
        reasons = {kind: self.refusal(kind) for kind in kinds}
        possible = tuple(kind for kind in kinds if reasons[kind] is None)
        if possible:
            return possible
        why = "; ".join(f"{UNIT_NAMES[kind]}: {reason}" for kind, reason in reasons.items())
        raise UnitsUnsupported(
            f"{method} cannot remove anything from a {self.layout.model_type} model ({why}).",
            suggestions=(
                "choose other units or another method",
                'use the pattern {"name": "units", "mode": "zero"} to study the choice without removing',
            ),
            pointer="/prune/method",
        )


def kept_alone(cutter: Cutter, kinds: Sequence[UnitKind]) -> tuple[str, ...]:
    """Return a sentence for every kind that was asked for and stays whole."""
    reasons = ((kind, cutter.refusal(kind)) for kind in kinds)
    return tuple(f"All {UNIT_NAMES[kind]} stay: {reason}." for kind, reason in reasons if reason)
