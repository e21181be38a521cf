"""Llama and the families that share its block: separate q, k, v, o and a gated feed-forward."""

from __future__ import annotations

from typing import Any

from pruning_core.families.base import OUTSIDE, Attention, Family, FeedForward
from pruning_core.families.shapes import (
    Shapes,
    around,
    gated,
    grouped_attention,
    head_norms,
    norms,
)

ATTENTION_INPUTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
)
MLP_INPUTS = (("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",))
ATTENTION = Attention(
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"
)
MLP = FeedForward(("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


def _parameters(c: Any) -> tuple[Shapes, Shapes]:
    bias = c.model_type in ("llama", "qwen3") and c.attention_bias
    attention = grouped_attention(c, bias=bias or c.model_type == "qwen2", output_bias=bias)
    wide_bias = c.model_type == "llama" and c.mlp_bias
    block = attention | gated(c, bias=wide_bias) | norms(c, *NORMS)
    return around(c), block | (head_norms(c) if c.model_type == "qwen3" else {})


LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    blocks="model.layers",
    inputs=(*ATTENTION_INPUTS, *MLP_INPUTS),
    attention=ATTENTION,
    feedforward=MLP,
    norms=NORMS,
    outside=OUTSIDE,
    parameters=_parameters,
    heads_divide_width=frozenset({"llama"}),
)
