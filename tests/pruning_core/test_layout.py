"""The units of stored tensors: what the layout says of a smaller model is what stock transformers builds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pruning_core.checkpoints.facts import inspect
from pruning_core.checkpoints.headers import TensorFacts
from pruning_core.errors import ModelInvalid
from pruning_core.families import FAMILIES, family_of
from pruning_core.spec.unit_method import UnitKind
from pruning_core.structure.layout import Layout
from pruning_core.structure.spans import Sizes, Span, TensorLayout
from tests import tiny

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)
HEAD_DIM = 8
NEURONS = {"gpt2": "n_inner", "opt": "ffn_dim", "qwen3_moe": "moe_intermediate_size"}


def layout_of(folder: Path) -> Layout:
    facts = inspect(folder)
    return Layout(family_of(facts.model_type), facts.config, facts.tensors)


def whole_sizes(model_type: str) -> Sizes:
    """Return the sizes of a tiny model."""
    groups = 4 if "kv_groups" in family_of(model_type).fixed else 2
    neurons = 128 if model_type == "gpt2" else 48
    return Sizes(
        hidden=32, neurons=neurons, kv_groups=groups, layers=tiny.BLOCKS, vocabulary=tiny.VOCAB
    )


def cuts(model_type: str) -> dict[UnitKind, tuple[int, dict[str, Any]]]:
    """Return a smaller number of every kind that can be cut, and the configuration of a model that has it."""
    family, whole = family_of(model_type), whole_sizes(model_type)
    types = getattr(tiny.config(model_type), "layer_types", None)
    neurons = NEURONS.get(model_type, "intermediate_size")
    half = {"num_attention_heads": 2, "num_key_value_heads": whole.kv_groups // 2}
    found: dict[UnitKind, tuple[int, dict[str, Any]]] = {
        "hidden": (24, {"hidden_size": 24, "head_dim": HEAD_DIM}),
        "neurons": (whole.neurons - 8, {neurons: whole.neurons - 8}),
        "kv_groups": (whole.kv_groups // 2, half | {"head_dim": HEAD_DIM}),
        "layers": (
            tiny.BLOCKS - 1,
            {family.width_keys["layers"]: tiny.BLOCKS - 1}
            | ({"layer_types": types[:-1]} if types else {}),
        ),
        "vocabulary": (tiny.VOCAB - 10, {"vocab_size": tiny.VOCAB - 10}),
    }
    return {kind: cut for kind, cut in found.items() if kind not in family.fixed}


def shape(one: TensorLayout, facts: TensorFacts, sizes: Sizes) -> tuple[int, ...]:
    return tuple(
        sum(span.each * sizes.of(span.kind) for span in spans) if spans else length
        for length, spans in zip(facts.shape, one.axes, strict=True)
    )


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_cut_model_has_the_shapes_and_the_size_of_stock_transformers_one(
    model_type: str, tmp_path: Path
) -> None:
    facts = inspect(tiny.save(tmp_path / "whole", model_type))
    layout = layout_of(tmp_path / "whole")
    assert layout.sizes == whole_sizes(model_type)
    assert layout.parameters(layout.sizes) == facts.parameters
    assert layout.bytes(layout.sizes) == facts.bytes
    for kind, (size, fields) in cuts(model_type).items():
        sizes = replace(layout.sizes, **{kind: size})
        other = inspect(tiny.save(tmp_path / kind, model_type, **fields))
        assert layout.parameters(sizes) == other.parameters < facts.parameters, kind
        assert layout.bytes(sizes) == other.bytes
        for name, tensor in other.tensors.items():
            assert shape(layout.tensors[name], facts.tensors[name], sizes) == tensor.shape, name
        lost = {layout.tensors[name].block for name in facts.tensors.keys() - other.tensors.keys()}
        assert lost == ({tiny.BLOCKS - 1} if kind == "layers" else set())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_several_kinds_are_cut_at_once(model_type: str, tmp_path: Path) -> None:
    layout = layout_of(tiny.save(tmp_path / "whole", model_type))
    sizes = layout.sizes
    fields: dict[str, Any] = {}
    for kind, (size, changes) in cuts(model_type).items():
        sizes, fields = replace(sizes, **{kind: size}), fields | changes
    other = inspect(tiny.save(tmp_path / "cut", model_type, **fields))
    assert layout.parameters(sizes) == other.parameters


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_no_unit_is_cut_from_what_has_none(model_type: str, tmp_path: Path) -> None:
    """What no axis names stays whole: in every block the same tensors, heads' norms and routers' biases."""
    layout = layout_of(tiny.save(tmp_path / "m", model_type))
    whole = {
        layout.module_name(name).rpartition(f"{layout.family.blocks}.")[2].partition(".")[2]
        for name, one in layout.tensors.items()
        if one.block is not None and not any(one.axes)
    }
    qk_norms = {"self_attn.q_norm.weight", "self_attn.k_norm.weight"}
    expected = {
        "gemma3_text": qk_norms,
        "qwen3": qk_norms,
        "qwen3_moe": qk_norms,
        "gpt_oss": {"mlp.router.bias"},
    }
    assert whole == expected.get(model_type, set())


def test_tensors_of_all_experts_are_marked_and_have_gate_and_up_in_turn(tmp_path: Path) -> None:
    layout = layout_of(tiny.save(tmp_path / "m", "gpt_oss"))
    stacked = {
        name.removeprefix("model.layers.1.mlp.experts."): one
        for name, one in layout.tensors.items()
        if one.stacked and one.block == 1
    }
    hidden, neurons = (Span("hidden", 32, 1),), (Span("neurons", 48, 1),)
    both = (Span("neurons", 48, 2),)
    assert stacked == {
        "gate_up_proj": TensorLayout(1, "", ((), hidden, both), stacked=4),
        "gate_up_proj_bias": TensorLayout(1, "", ((), both), stacked=4),
        "down_proj": TensorLayout(1, "", ((), neurons, hidden), stacked=4),
        "down_proj_bias": TensorLayout(1, "", ((), hidden), stacked=4),
    }
    sinks = layout.tensors["model.layers.1.self_attn.sinks"]
    assert sinks.axes == ((Span("kv_groups", 2, 2),),)
    assert not sinks.stacked


def test_experts_in_tensors_of_their_own_are_told_apart(tmp_path: Path) -> None:
    layout = layout_of(tiny.save(tmp_path / "m", "qwen3_moe"))
    parts = {one.part for one in layout.tensors.values()}
    assert parts == {"", "0", "1", "2", "3"}
    assert layout.tensors["model.layers.0.mlp.experts.3.down_proj.weight"].part == "3"
    assert not any(one.stacked for one in layout.tensors.values())


@pytest.mark.parametrize(
    ("model_type", "name", "shape"),
    [
        ("llama", "model.layers.1.mlp.up_proj.weight", (40, 32)),
        ("llama", "model.layers.0.self_attn.o_proj.weight", (32,)),
        ("gpt_oss", "model.layers.2.mlp.experts.gate_up_proj", (4, 32, 48)),
        ("gpt_oss", "model.layers.0.mlp.experts.down_proj", (4 * 48, 32, 1, 1)),
    ],
)
def test_a_tensor_that_contradicts_the_rest_is_refused(
    model_type: str, name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "m", model_type)
    tensors = dict(inspect(folder).tensors)
    tensors[name] = replace(tensors[name], shape=shape)
    config = json.loads((folder / "config.json").read_bytes())
    with pytest.raises(ModelInvalid):
        Layout(family_of(model_type), config, tensors)
