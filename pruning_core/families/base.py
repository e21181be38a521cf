"""`Family`: what the engine must know of an architecture. Data only, without torch; one table per family."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pruning_core.families.shapes import Shapes
from pruning_core.spec.unit_method import UnitKind

EXPERT = re.compile(r"(?<=\.experts\.)\d+(?=\.)")
"""An expert's number in a name."""
Parts = tuple[tuple[str, int], ...]
"""Names and output sizes of the matrices that lie one after the other in a fused tensor."""
Axis = UnitKind | None
"""Which units an axis of a tensor is made of; None where none can be cut."""
NormKind = Literal["rms", "rms_plus_one", "layer"]
"""`rms_plus_one` scales by 1 + weight, as Gemma does."""


@dataclass(frozen=True)
class Fold:
    """An order of one matrix's inputs that other matrices of the block can absorb in their output rows.

    Names are those of `model.matrix`: the module's path within the block, with `[part]` for a part of a fused
    module. `*` stands for one expert, the same one throughout. Between the writers and the reader nothing may tell
    one channel from another: no norm with a weight, no scale.

    Attributes:
        reader: The matrix whose inputs are put in order.
        writers: The matrices that make those inputs, one output row for each (per query head for heads).
        heads: The inputs are attention heads: channels stay within their head, and all query heads of a key-value
            group share one order.
    """

    reader: str
    writers: tuple[str, ...]
    heads: bool = False


@dataclass(frozen=True)
class Attention:
    """The matrices of an attention, by the names of `model.matrix`.

    Attributes:
        queries, keys, values: One row per channel of a head.
        output: One column per channel of a query head.
        per_head: Parameters of the block with one entry per query head.
    """

    queries: str
    keys: str
    values: str
    output: str
    per_head: tuple[str, ...] = ()

    def has(self, matrix: str) -> bool:
        """Tell whether a matrix of this name is one of the attention's."""
        return matrix in (self.queries, self.keys, self.values, self.output)


@dataclass(frozen=True)
class FeedForward:
    """The matrices of a feed-forward, by the names of `model.matrix`.

    Attributes:
        inputs: One row per neuron: gate and up, or fc1.
        output: One column per neuron: down, or fc2.
    """

    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class ParameterLocation:
    """Where a block keeps a matrix.

    Attributes:
        weight: Parameter of the block that holds it.
        bias: Parameter that holds its bias, if it has one.
        part: Which part of that parameter it is; empty where it is all of it.
    """

    weight: str
    bias: str
    part: str


@dataclass(frozen=True)
class FixedWhen:
    """Kinds of units that cannot go from models of one setting.

    Attributes:
        setting: Keys that lead to it in `config.json`; absent, null, false and empty do not count.
        kinds: Of the units.
        reason: Why stock transformers cannot load a removal.
    """

    setting: tuple[str, ...]
    kinds: tuple[UnitKind, ...]
    reason: str

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Tell whether a model has the setting."""
        setting: Any = config
        for key in self.setting:
            setting = setting.get(key) if isinstance(setting, Mapping) else None
        return bool(setting)


_NUMBERED = FixedWhen(
    ("per_layer_config",),
    ("layers",),
    "`per_layer_config` gives blocks settings of their own by their numbers, which would change",
)
"""In every architecture."""


@dataclass(frozen=True)
class Family:
    """Where an architecture keeps its blocks and its matrices, and which units can be cut from them.

    Attributes:
        name: Name of the table, for reports.
        model_types: `model_type` values of `config.json` that it describes.
        blocks: Path of the `ModuleList` of blocks in the causal model.
        inputs: Modules of a block grouped by the input they share, in order of execution. `*` stands for every
            expert. A statistic is taken once per group.
        attention: Its attention.
        feedforward: Its feed-forward, or one expert's.
        norms: Norms of a block that are as wide as the residual stream.
        outside: Parameters outside the blocks that units are cut from, with what their axes are made of. An axis
            counts as hidden only where it is as long as the residual stream is wide.
        parameters: From the settings as stock transformers reads them, the shapes of the parameters outside the blocks and of one block's.
        norm: How its norms scale.
        fused: For modules that hold several matrices, the parts (from the config).
        transposed: Weights of the matrices are stored [in, out].
        routers: Modules of a block that read the residual stream and are never pruned.
        file_names: Pairs (module path part, path part in the checkpoint) where they differ.
        width_keys: The configuration's names of the sizes that a cut changes.
        heads_divide_width: Model types whose configuration refuses a hidden size that the head count does not divide.
        scaled_embedding: Embeddings are multiplied by the root of the hidden size.
        fixed: Kinds of units that stock transformers cannot load a removal of, with the reason.
        fixed_when: The same, of models with a setting.
        begins_windows: Trained so that a text without its first token means nothing to it.
        experts: Whether the feed-forward is one of many, each reached by some tokens.
        stacked: Parameters that hold matrices of all experts, [experts, in, out], and which: the rows of several lie
            in turn along the last axis. A bias has the name of the parameter and `_bias`.
        uniform: Settings, and the one value of each under which all blocks are alike.
        head: Parameter that turns the residual stream into logits; absent from files where it is the embedding.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    inputs: tuple[tuple[str, ...], ...]
    attention: Attention
    feedforward: FeedForward
    norms: tuple[str, ...]
    outside: Mapping[str, tuple[Axis, ...]]
    parameters: Callable[[Any], tuple[Shapes, Shapes]]
    norm: NormKind = "rms"
    fused: Mapping[str, Callable[[Any], Parts]] = field(default_factory=dict)
    transposed: bool = False
    routers: tuple[str, ...] = ()
    file_names: tuple[tuple[str, str], ...] = ()
    width_keys: Mapping[UnitKind, str] = field(default_factory=lambda: WIDTH_KEYS)
    heads_divide_width: frozenset[str] = frozenset()
    scaled_embedding: bool = False
    fixed: Mapping[UnitKind, str] = field(default_factory=dict)
    fixed_when: tuple[FixedWhen, ...] = ()
    begins_windows: bool = False
    experts: bool = False
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    uniform: Mapping[str, Any] = field(default_factory=dict)
    head: str = "lm_head.weight"

    @property
    def root(self) -> str:
        """Module of the causal model that holds all but the head; checkpoints of a base model lack its name."""
        return self.blocks.partition(".")[0]

    @property
    def block_list(self) -> str:
        """Last part of the path of the blocks."""
        return self.blocks.rpartition(".")[2]

    @property
    def expert_list(self) -> str:
        """Module of a block that holds the experts."""
        return self.feedforward.output.partition(".*.")[0]

    @property
    def folds(self) -> tuple[Fold, Fold]:
        """Input orders that the block absorbs."""
        return (
            Fold(self.attention.output, (self.attention.values,), heads=True),
            Fold(self.feedforward.output, self.feedforward.inputs),
        )

    def fixed_in(self, config: Mapping[str, Any]) -> Mapping[UnitKind, str]:
        """Return the kinds of units that cannot go from a model of this configuration, with the reason."""
        conditions = (*self.fixed_when, _NUMBERED)
        reasons = {
            kind: condition.reason
            for condition in conditions
            if condition.holds(config)
            for kind in condition.kinds
        }
        return reasons | dict(self.fixed)

    def location(self, matrix: str) -> ParameterLocation:
        """Return where a block keeps a matrix, by its name in `model.matrix`."""
        expert = EXPERT.search(matrix)
        general = EXPERT.sub("*", matrix)
        for parameter, matrices in self.stacked.items():
            if expert and general in matrices:
                leaf = general.rpartition("*.")[2]
                return ParameterLocation(parameter, f"{parameter}_bias", f"{expert[0]}.{leaf}")
        path, _, part = matrix.partition("[")
        return ParameterLocation(f"{path}.weight", f"{path}.bias", part.removesuffix("]"))


WIDTH_KEYS: Mapping[UnitKind, str] = {
    "hidden": "hidden_size",
    "neurons": "intermediate_size",
    "layers": "num_hidden_layers",
    "vocabulary": "vocab_size",
}
"""Of most architectures."""
OUTSIDE: Mapping[str, tuple[Axis, ...]] = {
    "model.embed_tokens.weight": ("vocabulary", "hidden"),
    "model.norm.weight": ("hidden",),
    "lm_head.weight": ("vocabulary", "hidden"),
}
"""Of most architectures."""
LAYER_NORM = (
    "its LayerNorms subtract a mean over all residual dimensions, which no smaller model reproduces"
)
HEADS_TIED = "its configuration has no head size of its own: the number of heads fixes it"
