"""`Cut`: what removing units makes of every stored tensor, and of the configuration.

A cut of the residual stream from d to d' keeps the model's function by rescaling: with c = sqrt(d / d') and e(.) the
embedding's multiplier as a function of the hidden size (Gemma: its root, rounded to the stored dtype; else 1),

    embedding E[:, keep] e(d) / e(d')      norms c g[keep]  (Gemma: c (1 + w[keep]) - 1)      rms_norm_eps d / d'
    final norm before a tied head          c e(d') / e(d) g[keep];   before a head of its own c g[keep]
    tied head, where it is stored too      as the embedding; so what else reads the final norm

A norm then gives what it gave over d dimensions of which the removed ones are zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pruning_core.families.settings import spellings
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.unit_method import UnitKind
from pruning_core.structure.spans import Role, Spans, TensorLayout
from pruning_core.units.unit_groups import kept, spread

Index = torch.Tensor | None


@dataclass(frozen=True)
class Slices:
    """What one stored tensor becomes.

    Attributes:
        name: Its name in the result.
        shape: Its shape in the result.
        apply: Makes it from the source's; None where it is the source's.
    """

    name: str
    shape: tuple[int, ...]
    apply: Callable[[torch.Tensor], torch.Tensor] | None


class Cut:
    """The removal of the units of a plan.

    Args:
        plan: What goes, completely decided.
        dropped: Units that went by block and group name.
        config: Of the stock model, for what `config.json` leaves out.
        tied: Whether the head is the embedding in the loaded model.
    """

    def __init__(
        self,
        plan: UnitPlan,
        dropped: Mapping[tuple[int, str], torch.Tensor],
        config: Any,
        *,
        tied: bool,
    ) -> None:
        self._plan = plan
        self._dropped = dropped
        self._config = config
        self._tied = tied
        gone = set(plan.layers)
        self._layers = [index for index in range(plan.layout.sizes.layers) if index not in gone]
        self._numbers = {index: number for number, index in enumerate(self._layers)}

    def slices(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Slices | None:
        """Return what a stored tensor becomes; None where its block goes, or the head that it is a part of.

        Args:
            name: Its name in the source.
            shape: In the source.
            dtype: As stored.
        """
        layout = self._plan.layout.tensors[name]
        if layout.block in self._plan.layers or self._parts_with(layout):
            return None
        indices = [self._indices(layout, axis) for axis in range(len(shape))]
        new = tuple(
            length if index is None else index.shape[-1]
            for length, index in zip(shape, indices, strict=True)
        )
        scale = self._scale(layout.role, dtype)
        renamed = self._renamed(name, layout)
        if scale is None and all(index is None for index in indices):
            return Slices(renamed, new, None)

        def apply(tensor: torch.Tensor) -> torch.Tensor:
            for axis, index in enumerate(indices):
                if index is not None:
                    tensor = _take(tensor, axis, index)
            return (tensor if scale is None else scale(tensor)).contiguous()

        return Slices(renamed, new, apply)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of `config.json` for the cut model."""
        plan, layout = self._plan, self._plan.layout
        family, before = layout.family, layout.sizes
        smaller = dict(config)
        for kind, key in family.width_keys.items():
            if plan.sizes.of(kind) != before.of(kind):
                smaller |= dict.fromkeys(spellings(config, key), plan.sizes.of(kind))
        if plan.sizes.kv_groups != before.kv_groups:
            smaller["num_attention_heads"] = plan.sizes.kv_groups * layout.query_heads_per_group
            smaller["num_key_value_heads"] = plan.sizes.kv_groups
        if (plan.sizes.kv_groups, plan.sizes.hidden) != (before.kv_groups, before.hidden):
            smaller["head_dim"] = layout.head_dim
        if plan.sizes.hidden != before.hidden and plan.params.rescales:
            smaller["rms_norm_eps"] = self._config.rms_norm_eps * before.hidden / plan.sizes.hidden
        return smaller | self._layer_lists(config)

    def _layer_lists(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration's entries that have one value per block, or count blocks.

        Where blocks of one type are left and the file says nothing, it needs to say nothing.
        """
        if not self._plan.layers:
            return {}
        lists: dict[str, Any] = {}
        types = getattr(self._config, "layer_types", None) or ()
        if "layer_types" in config or len(set(types)) > 1:
            lists["layer_types"] = [types[index] for index in self._layers]
        if "max_window_layers" in config:
            windowed = self._config.max_window_layers
            lists["max_window_layers"] = sum(index < windowed for index in self._layers)
        return lists

    def _parts_with(self, layout: TensorLayout) -> bool:
        """Tell whether a tensor beside the model goes because it cannot be told how it would be cut."""
        return layout.further is not None and any(map(self._cuts, layout.further.unclear))

    def _renamed(self, name: str, layout: TensorLayout) -> str:
        block = layout.further.block if layout.further is not None else layout.block
        if block is None or not self._plan.layers:
            return name
        blocks = re.escape(self._plan.layout.family.block_list)
        number = self._numbers.get(block, block - len(self._plan.layers))
        return re.sub(rf"((?:^|\.){blocks}\.){block}\.", rf"\g<1>{number}.", name, count=1)

    def _indices(self, layout: TensorLayout, axis: int) -> Index:
        """Return the entries of an axis that stay, int64 [kept]; [experts, kept] where each expert has its own."""
        spans = layout.axes[axis]
        if not any(self._cuts(span.kind) for span in spans):
            return None
        if layout.stacked and any(span.kind == "neurons" for span in spans):
            experts = range(layout.stacked)
            return torch.stack(
                [self._entries(spans, layout.block, str(expert)) for expert in experts]
            )
        return self._entries(spans, layout.block, layout.part)

    def _cuts(self, kind: UnitKind) -> bool:
        return self._plan.sizes.of(kind) != self._plan.layout.sizes.of(kind)

    def _entries(self, spans: Spans, block: int | None, part: str) -> torch.Tensor:
        entries, start = [], 0
        for span in spans:
            units = self._kept(span.kind, block, part, span.units)
            entries.append(start + spread(units, span.each))
            start += span.units * span.each
        return torch.cat(entries)

    def _kept(self, kind: UnitKind, block: int | None, part: str, size: int) -> torch.Tensor:
        plan = self._plan
        if kind == "vocabulary" and plan.vocabulary is not None:
            return torch.tensor(plan.vocabulary)
        if kind == "hidden" and plan.hidden is not None:
            return kept(plan.hidden, size)
        name = f"{kind}/{part}" if part and kind == "neurons" else kind
        if block is not None and (block, name) in self._dropped:
            return kept(self._dropped[block, name], size)
        return torch.arange(size)

    def _scale(
        self, role: Role | None, dtype: torch.dtype
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        factors = residual_factors(self._plan, dtype, tied=self._tied)
        factor = factors.get(role) if role is not None else None
        if factor is None or not self._plan.params.rescales:
            return None
        return lambda tensor: scaled(tensor, factor, self._offset(role))

    def _offset(self, role: Role | None) -> float:
        gemma = self._plan.layout.family.norm == "rms_plus_one"
        return 1.0 if gemma and role in ("norm", "final_norm") else 0.0


def residual_factors(plan: UnitPlan, dtype: torch.dtype, *, tied: bool) -> dict[Role, float]:
    """Return what embeddings and norms are multiplied by when the residual stream is cut; empty where it is not."""
    before, after = plan.layout.sizes.hidden, plan.sizes.hidden
    if plan.hidden is None or before == after:
        return {}
    norm = (before / after) ** 0.5
    embedding = 1.0
    if plan.layout.family.scaled_embedding:
        first, last = (float(torch.tensor(size**0.5).to(dtype)) for size in (before, after))
        embedding = first / last
    factors: dict[Role, float] = {"embedding": embedding, "norm": norm, "final_norm": norm}
    if tied:
        factors |= {"head": embedding, "reader": embedding, "final_norm": norm / embedding}
    return factors


def scaled(tensor: torch.Tensor, factor: float, offset: float) -> torch.Tensor:
    """Return factor (offset + tensor) - offset, in the tensor's dtype."""
    exact = tensor.double()
    return ((exact + offset) * factor - offset).to(tensor.dtype)


def _take(tensor: torch.Tensor, axis: int, index: torch.Tensor) -> torch.Tensor:
    if index.ndim == 1:
        return tensor.index_select(axis, index)
    parts = [part.index_select(axis - 1, own) for part, own in zip(tensor, index, strict=True)]
    return torch.stack(parts)
