"""`Layout`: which units every stored tensor of a checkpoint is made of, axis by axis; read from headers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.checkpoints.headers import DTYPE_BYTES, TensorFacts
from pruning_core.errors import ModelInvalid
from pruning_core.families import family_of
from pruning_core.families.base import EXPERT, Axis, Family
from pruning_core.families.parameters import counted
from pruning_core.families.settings import completed, setting
from pruning_core.spec.output import Output
from pruning_core.spec.unit_method import InnerKind, UnitKind
from pruning_core.structure.counts import Alike, Counts
from pruning_core.structure.further import Further, Head, further
from pruning_core.structure.spans import Role, Sizes, Span, Spans, TensorLayout

_AS_STORED = Output(dtype="source")


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


class Layout:
    """The units of one checkpoint.

    Args:
        family: Of the model.
        config: Content of `config.json`.
        tensors: What the headers say, by stored name.

    Raises:
        ModelInvalid: a tensor's size contradicts the configuration.
    """

    def __init__(
        self, family: Family, config: Mapping[str, Any], tensors: Mapping[str, TensorFacts]
    ) -> None:
        config = completed(config)
        self.family = family
        self.model_type = str(config["model_type"])
        self.fixed = family.fixed_in(config)
        self.heads = int(setting(config, "num_attention_heads"))
        self._facts = {self.module_name(stored): facts for stored, facts in tensors.items()}
        self.head_dim = self._head_dim()
        self.kv_heads = self._kv_heads(config)
        self.sizes = Sizes(
            hidden=self._width("hidden", config),
            neurons=self._neurons(),
            kv_groups=self.kv_heads,
            layers=self._width("layers", config),
            vocabulary=self._width("vocabulary", config),
        )
        self._matrices = dict(self._matrix_axes(config))
        self._stacks = self._stacked_axes()
        self.further = self._beside(tensors)
        self.tensors = {
            stored: self._aside(self.further[stored], facts.shape)
            if stored in self.further
            else self._layout(self.module_name(stored), facts.shape)
            for stored, facts in tensors.items()
        }
        parameters = counted(family, config, tensors)
        self._counts = Counts(
            (
                Alike(
                    stored in parameters,
                    tensor.block is not None,
                    self._lengths(stored),
                    DTYPE_BYTES[tensors[stored].dtype],
                )
                for stored, tensor in self.tensors.items()
            ),
            self.sizes.layers,
        )

    @property
    def query_heads_per_group(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.kv_heads

    @property
    def input_widths(self) -> set[int]:
        """How many inputs the matrices of the blocks have."""
        return {self.sizes.hidden, self.sizes.neurons, self.heads * self.head_dim}

    def parameters(self, sizes: Sizes) -> int:
        """Return the parameters of the model cut to these sizes."""
        return self._counts.parameters(sizes)

    def bytes(self, sizes: Sizes) -> int:
        """Return the bytes of its tensors."""
        return self._counts.bytes(sizes)

    def module_name(self, stored: str) -> str:
        """Return the parameter's name in the causal model; checkpoints of a base model lack its prefix."""
        for inside, other in self.family.file_names:
            stored = stored.replace(other, inside)
        root, head = self.family.root, self.family.head.rpartition(".")[0]
        return stored if stored.startswith((f"{root}.", f"{head}.")) else f"{root}.{stored}"

    def block_of(self, name: str) -> tuple[int, str] | None:
        """Return the block of a parameter of the causal model and its name within, or None."""
        head, _, rest = name.removeprefix(f"{self.family.blocks}.").partition(".")
        inside = name.startswith(f"{self.family.blocks}.") and head.isdigit()
        return (int(head), rest) if inside else None

    def _lengths(self, stored: str) -> tuple[tuple[int, Spans], ...]:
        """Return the length of each axis that cannot be cut, and the runs of those that can."""
        shape = self._facts[self.module_name(stored)].shape
        axes = self.tensors[stored].axes
        return tuple(
            (0 if spans else length, spans) for length, spans in zip(shape, axes, strict=True)
        )

    def _width(self, kind: UnitKind, config: Mapping[str, Any]) -> int:
        return int(config[self.family.width_keys[kind]])

    def _block_shape(self, matrix: str) -> tuple[int, ...] | None:
        """Return the shape of the first block's tensor that holds a matrix, as [out, in]."""
        name = self.family.location(matrix.replace("*", "0")).weight
        facts = self._facts.get(f"{self.family.blocks}.0.{name}")
        if facts is None or len(facts.shape) < 2:
            return None
        shape = facts.shape[-2:]
        return shape[::-1] if self.family.transposed or name in self.family.stacked else shape

    def _head_dim(self) -> int:
        output = self._block_shape(self.family.attention.output)
        if output is None or output[1] % self.heads:
            raise ModelInvalid(f"{self.family.attention.output} does not fit {self.heads} heads")
        return output[1] // self.heads

    def _kv_heads(self, config: Mapping[str, Any]) -> int:
        keys = self.family.attention.keys
        shape = self._block_shape(keys)
        if shape is None or "[" in keys:
            return int(config.get("num_key_value_heads") or self.heads)
        return shape[0] // self.head_dim

    def _neurons(self) -> int:
        shape = self._block_shape(self.family.feedforward.output)
        if shape is None:
            raise ModelInvalid(f"the files lack {self.family.feedforward.output} of block 0")
        return shape[1]

    def _matrix_axes(self, config: Mapping[str, Any]) -> list[tuple[str, tuple[Spans, Spans]]]:
        """Return rows and columns of every module that holds matrices."""
        family = self.family
        sized = SimpleNamespace(
            **{**config, "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim}
        )
        hidden = (Span("hidden", self.sizes.hidden, 1),)
        queries = (Span("kv_groups", self.kv_heads, self.query_heads_per_group * self.head_dim),)
        keys = (Span("kv_groups", self.kv_heads, self.head_dim),)
        neurons = (Span("neurons", self.sizes.neurons, 1),)
        attention, mlp = family.attention, family.feedforward
        rows = {attention.queries: queries, attention.keys: keys, attention.values: keys}
        rows |= dict.fromkeys(mlp.inputs, neurons)
        columns = {attention.output: queries, mlp.output: neurons}
        axes: list[tuple[str, tuple[Spans, Spans]]] = []
        for path in (path for group in family.inputs for path in group):
            parts = family.fused[path](sized) if path in family.fused else ()
            names = [f"{path}[{part}]" for part, _ in parts] or [path]
            spans = tuple(span for name in names for span in rows.get(name, hidden))
            axes.append((path, (spans, columns.get(path, hidden))))
        return axes

    def _stacked_axes(self) -> dict[str, tuple[Spans, ...]]:
        """Return the axes of the parameters that hold matrices of all experts, and of their biases."""
        axes: dict[str, tuple[Spans, ...]] = {}
        for name, matrices in self.family.stacked.items():
            rows, columns = self._matrices[matrices[0]]
            in_turn = tuple(replace(span, each=span.each * len(matrices)) for span in rows)
            axes[name] = ((), columns, in_turn)
            axes[f"{name}_bias"] = ((), in_turn)
        return axes

    def _layout(self, name: str, shape: tuple[int, ...]) -> TensorLayout:
        place = self.block_of(name)
        if place is None:
            axes = self._outside(name, shape)
            return TensorLayout(None, "", axes, self._role(name))
        block, within = place
        if within in self._stacks:
            return self._stack(block, within, name, shape)
        expert = EXPERT.search(within)
        part = expert[0] if expert else ""
        path, _, leaf = EXPERT.sub("*", within).rpartition(".")
        role: Role | None = None
        axes = tuple(() for _ in shape)
        if path in self._matrices and leaf in ("weight", "bias"):
            rows, columns = self._matrices[path]
            both = (columns, rows) if self.family.transposed else (rows, columns)
            axes = both if leaf == "weight" else (rows,)
        elif path in self.family.norms:
            axes = ((Span("hidden", self.sizes.hidden, 1),),)
            role = "norm" if leaf == "weight" else None
        elif path in self.family.routers and leaf == "weight":
            axes = ((), (Span("hidden", self.sizes.hidden, 1),))
        elif within in self.family.attention.per_head:
            axes = ((Span("kv_groups", self.kv_heads, self.query_heads_per_group),),)
        self._check(name, shape, axes)
        return TensorLayout(block, part, axes, role)

    def _stack(self, block: int, within: str, name: str, shape: tuple[int, ...]) -> TensorLayout:
        axes = self._stacks[within]
        self._check(name, shape, axes)
        return TensorLayout(block, "", axes, stacked=shape[0])

    def _beside(self, tensors: Mapping[str, TensorFacts]) -> dict[str, Further]:
        """Return the tensors that are no part of a block, nor known outside the blocks."""
        heads = {stored: self._head(self.module_name(stored)) for stored in tensors}
        blocks = {
            head for stored, head in heads.items() if self._is_matrix(self.module_name(stored))
        }
        shapes = {
            stored: (Head(*head, is_block=head in blocks), tensors[stored].shape)
            for stored, head in heads.items()
            if head is not None
        }
        return further(shapes, self.sizes.hidden, self.sizes.vocabulary)

    def _head(self, name: str) -> tuple[str, int | None] | None:
        """Return what a tensor beside the model is a part of, with its number where that is a block; else None."""
        place = self.block_of(name)
        if place is not None:
            beyond = place[0] >= self.sizes.layers
            return (f"{self.family.block_list}.{place[0]}", place[0]) if beyond else None
        if name in self.family.outside:
            return None
        return name.removeprefix(f"{self.family.root}.").partition(".")[0], None

    def _is_matrix(self, name: str) -> bool:
        """Tell whether a tensor is called as a matrix of a block, wherever it lies."""
        path = EXPERT.sub("*", name).rpartition(".")[0]
        return any(path.endswith(f".{matrix}") for matrix in self._matrices)

    def _aside(self, tensor: Further, shape: tuple[int, ...]) -> TensorLayout:
        axes = tuple(
            (Span(kind, length, 1),) if kind and kind not in tensor.unclear else ()
            for kind, length in zip(tensor.axes, shape, strict=True)
        )
        reads = len(shape) > 1 and tensor.axes[-1] == "hidden"
        return TensorLayout(None, "", axes, "reader" if reads else None, further=tensor)

    def _outside(self, name: str, shape: tuple[int, ...]) -> tuple[Spans, ...]:
        kinds: tuple[Axis, ...] = self.family.outside.get(name, tuple(None for _ in shape))
        return tuple(
            (Span(kind, length, 1),) if kind and length == self.sizes.of(kind) else ()
            for kind, length in zip(kinds, shape, strict=True)
        )

    def _role(self, name: str) -> Role | None:
        kinds = self.family.outside.get(name)
        if kinds == ("hidden",):
            return "final_norm" if name.endswith(".weight") else None
        if kinds == ("vocabulary", "hidden"):
            return "head" if name == self.family.head else "embedding"
        return None

    @staticmethod
    def _check(name: str, shape: tuple[int, ...], axes: tuple[Spans, ...]) -> None:
        if len(shape) != len(axes):
            raise ModelInvalid(f"{name} has {len(shape)} axes where its family has {len(axes)}")
        for length, spans in zip(shape, axes, strict=True):
            expected = sum(span.units * span.each for span in spans)
            if spans and expected != length:
                raise ModelInvalid(
                    f"{name} has shape {list(shape)}; config.json calls for {expected} where it has {length}"
                )


def uncompensated(layout: Layout, kinds: Sequence[InnerKind]) -> tuple[InnerKind, ...]:
    """Return the kinds whose read-out has no bias that could take the mean of what goes."""
    family = layout.family
    readouts = {"kv_groups": family.attention.output, "neurons": family.feedforward.output}
    names = set(map(layout.module_name, layout.tensors))
    biases = {kind: family.location(readouts[kind].replace("*", "0")).bias for kind in kinds}
    return tuple(kind for kind in kinds if f"{family.blocks}.0.{biases[kind]}" not in names)
