"""Phi (attention and feed-forward read the same input) and Phi-3 (fused q/k/v and gate/up)."""

from __future__ import annotations

from typing import Any

from pruning_core.families.base import Family, Fold, Parts

PHI = Family(
    name="phi",
    model_types=("phi",),
    blocks="model.layers",
    inputs=(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1"),
        ("self_attn.dense",),
        ("mlp.fc2",),
    ),
    folds=(
        Fold("self_attn.dense", ("self_attn.v_proj",), heads=True),
        Fold("mlp.fc2", ("mlp.fc1",)),
    ),
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
    folds=(
        Fold("self_attn.o_proj", ("self_attn.qkv_proj[v]",), heads=True),
        Fold("mlp.down_proj", ("mlp.gate_up_proj[gate]", "mlp.gate_up_proj[up]")),
    ),
    fused={"self_attn.qkv_proj": _qkv, "mlp.gate_up_proj": _gate_up},
)
