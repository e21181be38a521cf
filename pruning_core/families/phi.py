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
    fused={"self_attn.qkv_proj": _qkv, "mlp.gate_up_proj": _gate_up},
    fixed_when=tuple(
        FixedWhen((rope, factor), ("hidden", "kv_groups"), _LONG_ROPE)
        for rope in ("rope_scaling", "rope_parameters")
        for factor in ("short_factor", "long_factor")
    ),
)
