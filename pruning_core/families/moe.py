"""Mixtral, Qwen3-MoE and gpt-oss: routed experts, of which each is a feed-forward of its own."""

from __future__ import annotations

from pruning_core.families.base import OUTSIDE, WIDTH_KEYS, Attention, Family, FeedForward
from pruning_core.families.llama import ATTENTION, ATTENTION_INPUTS, NORMS

MIXTRAL = Family(
    name="mixtral",
    model_types=("mixtral",),
    blocks="model.layers",
    inputs=(*ATTENTION_INPUTS, ("mlp.experts.*.w1", "mlp.experts.*.w3"), ("mlp.experts.*.w2",)),
    attention=ATTENTION,
    feedforward=FeedForward(("mlp.experts.*.w1", "mlp.experts.*.w3"), "mlp.experts.*.w2"),
    norms=NORMS,
    outside=OUTSIDE,
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
    routers=("mlp.router",),
    experts=True,
    stacked={
        "mlp.experts.gate_up_proj": _GPT_OSS_EXPERT.inputs,
        "mlp.experts.down_proj": (_GPT_OSS_EXPERT.output,),
    },
)
