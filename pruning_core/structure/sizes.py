"""Which sizes a model can be cut to, and which of them come nearest to what a job asks for; read from headers alone."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.errors import ModelInvalid, SizeUnreachable, UnitsUnsupported
from pruning_core.families import family_of
from pruning_core.spec.output import Output
from pruning_core.spec.patterns import Units, removed_count
from pruning_core.spec.prune import Budget, PruneSpec
from pruning_core.spec.unit_method import (
    INNER,
    UNIT_NAMES,
    InnerKind,
    ModelShape,
    UnitKind,
    UnitMethod,
)
from pruning_core.structure.layout import Layout, Sizes

_AS_STORED = Output(dtype="source")
SLACK = 0.01
"""A target is out of reach where the nearest legal size misses it by more than this share beyond the last one."""


def layout_of(facts: CheckpointFacts, output: Output = _AS_STORED) -> Layout:
    """Return the units of a checkpoint, whose tensors count the bytes that they will be written in.

    Raises:
        ModelInvalid: configuration and tensors contradict each other.
    """
    try:
        tensors = facts.written(output.rounds_to(gguf=facts.gguf is not None))
        return Layout(family_of(facts.model_type), facts.config, tensors)
    except (AttributeError, KeyError, ValueError, ZeroDivisionError) as error:
        raise ModelInvalid(
            f"config.json and the tensors describe no {facts.model_type} model: {error}"
        ) from error


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
        near = [one for one in options if self._miss(one) <= SLACK * self.weigh(sizes)]
        if not near:
            return min(options, key=self._miss)
        wanted = (1 - self._common_share(sizes)) * sizes.kv_groups
        return min(near, key=lambda one: abs(one.kv_groups - wanted))

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


def check_units(spec: PruneSpec, layout: Layout) -> None:
    """Refuse a job on units that cannot go from this model, or not so many; what data decides is left to the run.

    Raises:
        UnitsUnsupported, SizeUnreachable: with the sizes that can be had.
    """
    assert spec.units is not None
    assert isinstance(spec.method, UnitMethod)
    cutter = Cutter(layout, spec.units)
    kinds = cutter.require(spec.method.unit_kinds, spec.method.name)
    _check_refit(spec, layout)
    amount = spec.sparsity is not None or spec.budget is not None
    sizes = layout.sizes
    if amount and "vocabulary" not in kinds:
        sizes = Target.of(cutter, spec.sparsity, spec.budget).solve(kinds)
    check_method(spec.method, layout, sizes)


def _check_refit(spec: PruneSpec, layout: Layout) -> None:
    """Refuse to fit routed experts to the dense model."""
    if layout.family.experts and spec.refit is not None and spec.refit.target == "dense":
        raise UnitsUnsupported(
            "refit with the target `dense` cannot follow routed experts: the two models send tokens to different ones.",
            suggestions=("use the target `same`",),
            pointer="/prune/refinement",
        )


def check_method(method: UnitMethod, layout: Layout, sizes: Sizes) -> None:
    """Refuse what the method cannot do to this model, or not to these sizes.

    Raises:
        UnitsUnsupported, SizeUnreachable: what, and what can be had instead.
    """
    bare = uncompensated(layout, INNER)
    method.check_model(
        ModelShape(
            model_type=layout.model_type,
            blocks=layout.sizes.layers,
            routes=bool(layout.family.experts),
            with_bias=frozenset(kind for kind in INNER if kind not in bare),
            before={kind: layout.sizes.of(kind) for kind in INNER},
            after={kind: sizes.of(kind) for kind in INNER},
        )
    )


def uncompensated(layout: Layout, kinds: Sequence[InnerKind]) -> tuple[InnerKind, ...]:
    """Return the kinds whose read-out has no bias that could take the mean of what goes."""
    family = layout.family
    readouts = {"kv_groups": family.attention.output, "neurons": family.feedforward.output}
    names = set(map(layout.module_name, layout.tensors))
    biases = {kind: family.place(readouts[kind].replace("*", "0")).bias for kind in kinds}
    return tuple(kind for kind in kinds if f"{family.blocks}.0.{biases[kind]}" not in names)


def inner(kinds: Sequence[UnitKind]) -> tuple[InnerKind, ...]:
    """Return the kinds that lie within a block."""
    return tuple(kind for kind in INNER if kind in kinds)


def _with(sizes: Sizes, kind: UnitKind, size: int) -> Sizes:
    return replace(sizes, **{kind: size})
