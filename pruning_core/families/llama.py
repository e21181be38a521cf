"""Llama and the families that share its block: separate q, k, v, o and a gated feed-forward."""

from __future__ import annotations

from pruning_core.families.base import OUTSIDE, Attention, Family, FeedForward

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

LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    blocks="model.layers",
    inputs=(*ATTENTION_INPUTS, *MLP_INPUTS),
    attention=ATTENTION,
    feedforward=MLP,
    norms=NORMS,
    outside=OUTSIDE,
    heads_divide_width=frozenset({"llama"}),
)
