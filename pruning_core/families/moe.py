"""Mixtral, Qwen3-MoE and gpt-oss: routed experts, of which each is a feed-forward of its own."""

from __future__ import annotations

from typing import Any

from pruning_core.families.base import OUTSIDE, WIDTH_KEYS, Attention, Family, FeedForward
from pruning_core.families.llama import ATTENTION, ATTENTION_INPUTS, NORMS
from pruning_core.families.shapes import (
    Shapes,
    around,
    grouped_attention,
    head_norms,
    linear,
    norms,
)


def _apart(c: Any, wide: int, inputs: tuple[str, str], output: str) -> Shapes:
    """Return a router, and experts that have a tensor each."""
    shapes = linear("mlp.gate", c.hidden_size, c.num_local_experts, bias=False)
    for expert in (f"mlp.experts.{number}." for number in range(c.num_local_experts)):
        for name in inputs:
            shapes |= linear(expert + name, c.hidden_size, wide, bias=False)
        shapes |= linear(expert + output, wide, c.hidden_size, bias=False)
    return shapes


def _mixtral(c: Any) -> tuple[Shapes, Shapes]:
    attention = grouped_attention(c, bias=False, output_bias=False)
    experts = _apart(c, c.intermediate_size, ("w1", "w3"), "w2")
    return around(c), attention | experts | norms(c, *NORMS)


def _qwen(c: Any) -> tuple[Shapes, Shapes]:
    attention = grouped_attention(c, bias=c.attention_bias, output_bias=c.attention_bias)
    experts = _apart(c, c.moe_intermediate_size, ("gate_proj", "up_proj"), "down_proj")
    return around(c), attention | head_norms(c) | experts | norms(c, *NORMS)


def _gpt_oss(c: Any) -> tuple[Shapes, Shapes]:
    experts, width, wide = c.num_local_experts, c.hidden_size, c.intermediate_size
    attention = grouped_attention(c, bias=c.attention_bias, output_bias=c.attention_bias)
    feedforward: Shapes = {
        "self_attn.sinks": (c.num_attention_heads,),
        "mlp.experts.gate_up_proj": (experts, width, 2 * wide),
        "mlp.experts.gate_up_proj_bias": (experts, 2 * wide),
        "mlp.experts.down_proj": (experts, wide, width),
        "mlp.experts.down_proj_bias": (experts, width),
    }
    feedforward |= linear("mlp.router", width, experts, bias=True)
    return around(c), attention | feedforward | norms(c, *NORMS)


MIXTRAL = Family(
    name="mixtral",
    model_types=("mixtral",),
    blocks="model.layers",
    inputs=(*ATTENTION_INPUTS, ("mlp.experts.*.w1", "mlp.experts.*.w3"), ("mlp.experts.*.w2",)),
    attention=ATTENTION,
    feedforward=FeedForward(("mlp.experts.*.w1", "mlp.experts.*.w3"), "mlp.experts.*.w2"),
    norms=NORMS,
    outside=OUTSIDE,
    parameters=_mixtral,
    routers=("mlp.gate",),
    file_names=((".mlp.", ".block_sparse_moe."),),
    experts=True,
)

_QWEN_EXPERT = FeedForward(
    ("mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"), "mlp.experts.*.down_proj"
)

QWEN3_MOE = Family(
    name="qwen3_moe",
    model_types=("qwen3_moe",),
    blocks="model.layers",
    inputs=(*ATTENTION_INPUTS, _QWEN_EXPERT.inputs, (_QWEN_EXPERT.output,)),
    attention=ATTENTION,
    feedforward=_QWEN_EXPERT,
    norms=NORMS,
    outside=OUTSIDE,
    parameters=_qwen,
    routers=("mlp.gate",),
    width_keys={**WIDTH_KEYS, "neurons": "moe_intermediate_size"},
    experts=True,
    uniform={"decoder_sparse_step": 1, "mlp_only_layers": []},
)

_GPT_OSS_EXPERT = FeedForward(("mlp.experts.*.gate", "mlp.experts.*.up"), "mlp.experts.*.down")

GPT_OSS = Family(
    name="gpt_oss",
    model_types=("gpt_oss",),
    blocks="model.layers",
    inputs=(*ATTENTION_INPUTS, _GPT_OSS_EXPERT.inputs, (_GPT_OSS_EXPERT.output,)),
    attention=Attention(
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        per_head=("self_attn.sinks",),
    ),
    feedforward=_GPT_OSS_EXPERT,
    norms=NORMS,
    outside=OUTSIDE,
    parameters=_gpt_oss,
    routers=("mlp.router",),
    experts=True,
    stacked={
        "mlp.experts.gate_up_proj": _GPT_OSS_EXPERT.inputs,
        "mlp.experts.down_proj": (_GPT_OSS_EXPERT.output,),
    },
)
