"""What can be cut from a model, as `GET /v1/models/inspect` shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from api import inspection_schemas
from pruning_core.admission.model_checks import inspect_local
from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.fetch import hub_model
from pruning_core.spec.methods import METHODS, method_name
from pruning_core.spec.model import ModelRef
from pruning_core.spec.patterns import Units
from pruning_core.spec.unit_method import UNIT_NAMES, UnitKind, UnitMethod
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.further import inspection_notes
from pruning_core.structure.layout import Layout, layout_of
from store.settings import Settings

MAX_LISTED = 64
"""Longer regular lists of sizes are given by their ends and their step alone."""


def inspect(
    model: ModelRef, multiples: Sequence[int], settings: Settings
) -> inspection_schemas.Inspection:
    """Return the facts of a model and the sizes that it can be cut to.

    Raises:
        PruningError: what is wrong with the model, or that the hub does not answer.
    """
    facts, commit = _facts(model, settings)
    layout = layout_of(facts)
    cutters = [Cutter(layout, Units(multiple_of=multiple)) for multiple in sorted(set(multiples))]
    return inspection_schemas.Inspection(
        ref=model.ref,
        revision=model.revision,
        commit=commit,
        architecture=facts.architecture,
        model_type=facts.model_type,
        family=layout.family.name,
        parameters=facts.parameters,
        bytes=facts.given_bytes,
        dtype=_dtype(facts),
        blocks=facts.blocks,
        max_positions=facts.max_positions,
        tied_embeddings=_tied(facts, layout),
        query_heads=layout.heads,
        query_heads_per_group=layout.query_heads_per_group,
        head_dim=layout.head_dim,
        axes=[_axis(cutters, kind) for kind in UNIT_NAMES],
        methods=_fits(cutters[0]),
        notes=list(inspection_notes(layout.further)),
    )


def _facts(model: ModelRef, settings: Settings) -> tuple[CheckpointFacts, str | None]:
    if model.path is None:
        assert model.repo is not None
        return hub_model.inspect(model.repo, model.revision)
    return inspect_local(model.path, settings.model_roots), None


def _dtype(facts: CheckpointFacts) -> str:
    """Return the type that most bytes of the parameters have."""
    if facts.gguf is not None:
        return facts.gguf.type
    sizes: Counter[str] = Counter()
    for tensor in (facts.tensors[name] for name in facts.parameter_names):
        sizes[tensor.dtype] += tensor.bytes
    return sizes.most_common(1)[0][0]


def _tied(facts: CheckpointFacts, layout: Layout) -> bool:
    has_head = any(tensor.role == "head" for tensor in layout.tensors.values())
    return not has_head or facts.config.get("tie_word_embeddings") is True


def _axis(cutters: Sequence[Cutter], kind: UnitKind) -> inspection_schemas.Axis:
    finest, sizes = cutters[0], cutters[0].layout.sizes
    size = sizes.of(kind)
    one_less = replace(sizes, **{kind: size - 1})
    legal, reason = finest.legal(kind), finest.refusal(kind)
    rounded = kind in ("hidden", "neurons")
    return inspection_schemas.Axis(
        name=kind,
        title=UNIT_NAMES[kind],
        size=size,
        unit_parameters=finest.layout.parameters(sizes) - finest.layout.parameters(one_less),
        largest_share=_share(finest, kind, legal[0]) if legal else 0.0,
        removable=reason is None,
        reason=reason,
        rule=finest.rule(kind) if reason is None else None,
        kept=[
            _kept(cutter, kind, rounded=rounded) for cutter in (cutters if rounded else [finest])
        ],
    )


def _kept(cutter: Cutter, kind: UnitKind, *, rounded: bool) -> inspection_schemas.KeptSizes:
    legal = cutter.legal(kind)
    step = _step(legal)
    listed = step is None or len(legal) <= MAX_LISTED
    return inspection_schemas.KeptSizes(
        multiple_of=cutter.pattern.multiple_of if rounded else None,
        count=len(legal),
        start=legal[0] if legal else None,
        stop=legal[-1] if legal else None,
        step=step,
        sizes=[
            inspection_schemas.KeptSize(size=size, share=_share(cutter, kind, size))
            for size in legal
        ]
        if listed
        else None,
    )


def _step(legal: Sequence[int]) -> int | None:
    """Return the distance from each size to the next, where there is one."""
    if isinstance(legal, range):
        return legal.step if len(legal) > 1 else None
    steps = {after - before for before, after in pairwise(legal)}
    return steps.pop() if len(steps) == 1 else None


def _share(cutter: Cutter, kind: UnitKind, size: int) -> float:
    return round(cutter.share(replace(cutter.layout.sizes, **{kind: size})), 6)


def _fits(cutter: Cutter) -> list[inspection_schemas.MethodFit]:
    return [_fit(cutter, method) for method in METHODS if issubclass(method, UnitMethod)]


def _fit(cutter: Cutter, method: type[UnitMethod]) -> inspection_schemas.MethodFit:
    """Tell which of the units that a method can be asked for can go from this model."""
    reasons = {kind: cutter.refusal(kind) for kind in method.removable}
    possible = [kind for kind, reason in reasons.items() if reason is None]
    return inspection_schemas.MethodFit(
        name=method_name(method),
        possible=bool(possible),
        units=possible,
        reason="; ".join(f"{UNIT_NAMES[kind]}: {why}" for kind, why in reasons.items() if why)
        or None,
    )
