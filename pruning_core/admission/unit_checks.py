"""Whether a method can remove what it is to remove, and as much, from a model; known from its headers."""

from __future__ import annotations

from pruning_core.errors import UnitsUnsupported
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.unit_method import INNER, ModelShape, UnitMethod
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.layout import Layout, uncompensated
from pruning_core.structure.spans import Sizes
from pruning_core.structure.target import Target


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
