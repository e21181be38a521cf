"""Phi (attention and feed-forward read the same input) and Phi-3 (fused q/k/v and gate/up)."""

from __future__ import annotations

from typing import Any

from pruning_core.families.base import (
    LAYER_NORM,
    OUTSIDE,
    Attention,
    Family,
    FeedForward,
    FixedWhen,
    Parts,
)
from pruning_core.families.llama import NORMS
from pruning_core.families.shapes import Shapes, around, grouped_attention, linear, norm, norms


def _phi(c: Any) -> tuple[Shapes, Shapes]:
    width, wide = c.hidden_size, c.intermediate_size
    table = (c.vocab_size, width)
    outside: Shapes = {"model.embed_tokens.weight": table, "lm_head.weight": table}
    outside |= norm("model.final_layernorm", width, bias=True) | {"lm_head.bias": (c.vocab_size,)}
    block = grouped_attention(c, bias=True, output_bias=True, output="self_attn.dense")
    block |= linear("mlp.fc1", width, wide, bias=True) | linear("mlp.fc2", wide, width, bias=True)
    if c.qk_layernorm:
        head = width // c.num_attention_heads
        block |= norm("self_attn.q_layernorm", head, bias=True)
        block |= norm("self_attn.k_layernorm", head, bias=True)
    return outside, block | norm("input_layernorm", width, bias=True)


PHI = Family(
    name="phi",
    model_types=("phi",),
    blocks="model.layers",
    inputs=(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1"),
        ("self_attn.dense",),
        ("mlp.fc2",),
    ),
    attention=Attention(
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense"
    ),
    feedforward=FeedForward(("mlp.fc1",), "mlp.fc2"),
    norms=("input_layernorm",),
    outside={
        "model.embed_tokens.weight": ("vocabulary", "hidden"),
        "model.final_layernorm.weight": ("hidden",),
        "model.final_layernorm.bias": ("hidden",),
        "lm_head.weight": ("vocabulary", "hidden"),
        "lm_head.bias": ("vocabulary",),
    },
    parameters=_phi,
    norm="layer",
    fixed={"hidden": LAYER_NORM},
    fixed_when=(
        FixedWhen(
            ("qk_layernorm",),
            ("kv_groups",),
            "with `qk_layernorm` its norms are as wide as hidden_size over the number of heads, whatever `head_dim` says",
        ),
    ),
)


_LONG_ROPE = (
    "its `short_factor` and `long_factor` must be as long as hidden_size over the number of heads calls for, "
    "whatever `head_dim` says"
)


def _qkv(config: Any) -> Parts:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries = config.num_attention_heads * head_dim
    keys = config.num_key_value_heads * head_dim
    return (("q", queries), ("k", keys), ("v", keys))


def _gate_up(config: Any) -> Parts:
    return (("gate", config.intermediate_size), ("up", config.intermediate_size))


def _phi3(c: Any) -> tuple[Shapes, Shapes]:
    width, wide = c.hidden_size, c.intermediate_size
    queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    block = (
        linear("self_attn.qkv_proj", width, queries + 2 * keys, bias=False)
        | linear("self_attn.o_proj", queries, width, bias=False)
        | linear("mlp.gate_up_proj", width, 2 * wide, bias=False)
        | linear("mlp.down_proj", wide, width, bias=False)
    )
    return around(c), block | norms(c, *NORMS)


PHI3 = Family(
    name="phi3",
    model_types=("phi3",),
    blocks="model.layers",
    inputs=(
        ("self_attn.qkv_proj",),
        ("self_attn.o_proj",),
        ("mlp.gate_up_proj",),
        ("mlp.down_proj",),
    ),
    attention=Attention(
        "self_attn.qkv_proj[q]",
        "self_attn.qkv_proj[k]",
        "self_attn.qkv_proj[v]",
        "self_attn.o_proj",
    ),
    feedforward=FeedForward(("mlp.gate_up_proj[gate]", "mlp.gate_up_proj[up]"), "mlp.down_proj"),
    norms=NORMS,
    outside=OUTSIDE,
    parameters=_phi3,
    fused={"self_attn.qkv_proj": _qkv, "mlp.gate_up_proj": _gate_up},
    fixed_when=tuple(
        FixedWhen((rope, factor), ("hidden", "kv_groups"), _LONG_ROPE)
        for rope in ("rope_scaling", "rope_parameters")
        for factor in ("short_factor", "long_factor")
    ),
)
