"""The architectures whose GGUF files are read, as llama.cpp's converter writes them. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning_core.gguf.architectures import Change, GgufTable, GgufTensorName


def _t(name: str, change: Change = "none", optional: str = "") -> GgufTensorName:
    return GgufTensorName(name, change, optional)


_OUTSIDE = {
    "token_embd.weight": _t("model.embed_tokens.weight"),
    "output_norm.weight": _t("model.norm.weight"),
    "output.weight": _t("lm_head.weight", optional="head"),
}
_NORMS = {
    "attn_norm.weight": _t("input_layernorm.weight"),
    "ffn_norm.weight": _t("post_attention_layernorm.weight"),
}
_VALUES = {
    "attn_v.weight": _t("self_attn.v_proj.weight"),
    "attn_output.weight": _t("self_attn.o_proj.weight"),
}
_ATTENTION = {
    "attn_q.weight": _t("self_attn.q_proj.weight"),
    "attn_k.weight": _t("self_attn.k_proj.weight"),
    **_VALUES,
}
_ROTATED = {
    "attn_q.weight": _t("self_attn.q_proj.weight", "query_rows"),
    "attn_k.weight": _t("self_attn.k_proj.weight", "key_rows"),
    **_VALUES,
}
_ROTATED_BIASES = {
    "attn_q.bias": _t("self_attn.q_proj.bias", "query_rows", "attention_bias"),
    "attn_k.bias": _t("self_attn.k_proj.bias", "key_rows", "attention_bias"),
    "attn_v.bias": _t("self_attn.v_proj.bias", optional="attention_bias"),
    "attn_output.bias": _t("self_attn.o_proj.bias", optional="attention_bias"),
}
_BIASES = {name: GgufTensorName(bias.name, "none", bias.optional) for name, bias in _ROTATED_BIASES.items()}  # fmt: skip
_MLP = {
    "ffn_gate.weight": _t("mlp.gate_proj.weight"),
    "ffn_up.weight": _t("mlp.up_proj.weight"),
    "ffn_down.weight": _t("mlp.down_proj.weight"),
}
_MLP_BIASES = {
    "ffn_gate.bias": _t("mlp.gate_proj.bias", optional="mlp_bias"),
    "ffn_up.bias": _t("mlp.up_proj.bias", optional="mlp_bias"),
    "ffn_down.bias": _t("mlp.down_proj.bias", optional="mlp_bias"),
}
_HEAD_NORMS = {
    "attn_q_norm.weight": _t("self_attn.q_norm.weight"),
    "attn_k_norm.weight": _t("self_attn.k_norm.weight"),
}
_SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_KV = {"attention.head_count_kv": "num_key_value_heads"}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "use_parallel_residual": (False,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "embedding_scale": (0, 1),
    "attention.temperature_scale": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_shared_count": (0,),
    "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,),
    "pooling_type": (0,),
    "tensor_data_layout": ("Meta AI original pth",),
}
_HEAD = {"head": {"tie_word_embeddings": False}}
_LLAMA_GROUPS = {
    **_HEAD,
    "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True},
}

LLAMA = GgufTable(
    architecture="llama",
    model_type="llama",
    class_name="LlamaForCausalLM",
    outside=_OUTSIDE,
    block={**_NORMS, **_ROTATED, **_ROTATED_BIASES, **_MLP, **_MLP_BIASES},
    keys=_SIZES,
    optional_keys=_KV,
    neutral=_NEUTRAL,
    groups=_LLAMA_GROUPS,
)
MISTRAL = GgufTable(
    architecture="llama",
    model_type="mistral",
    class_name="MistralForCausalLM",
    outside=_OUTSIDE,
    block={**_NORMS, **_ROTATED, **_MLP},
    keys=_SIZES,
    optional_keys=_KV,
    neutral=_NEUTRAL,
    groups=_HEAD,
    when="attention.sliding_window",
    window=True,
)
MIXTRAL = GgufTable(
    architecture="llama",
    model_type="mixtral",
    class_name="MixtralForCausalLM",
    outside=_OUTSIDE,
    block={
        **_NORMS,
        **_ROTATED,
        "ffn_gate_inp.weight": _t("block_sparse_moe.gate.weight"),
        "ffn_gate_exps.weight": _t("block_sparse_moe.experts.*.w1.weight", "experts"),
        "ffn_down_exps.weight": _t("block_sparse_moe.experts.*.w2.weight", "experts"),
        "ffn_up_exps.weight": _t("block_sparse_moe.experts.*.w3.weight", "experts"),
    },
    keys={
        **_SIZES,
        "expert_count": "num_local_experts",
        "expert_used_count": "num_experts_per_tok",
    },
    optional_keys=_KV,
    neutral={**_NEUTRAL, "expert_weights_norm": (True,), "expert_weights_scale": (0, 1)},
    groups=_HEAD,
    fixed={"sliding_window": None},
    when="expert_count",
    window=True,
)
QWEN2 = GgufTable(
    architecture="qwen2",
    model_type="qwen2",
    class_name="Qwen2ForCausalLM",
    outside=_OUTSIDE,
    block={
        **_NORMS,
        **_ATTENTION,
        **{name: _t(bias.name) for name, bias in _BIASES.items() if "output" not in name},
        **_MLP,
    },
    keys=_SIZES,
    optional_keys=_KV,
    neutral=_NEUTRAL,
    groups=_HEAD,
)
QWEN3 = GgufTable(
    architecture="qwen3",
    model_type="qwen3",
    class_name="Qwen3ForCausalLM",
    outside=_OUTSIDE,
    block={**_NORMS, **_ATTENTION, **_BIASES, **_HEAD_NORMS, **_MLP},
    keys=_SIZES,
    optional_keys=_KV,
    neutral=_NEUTRAL,
    groups={**_HEAD, "attention_bias": {"attention_bias": True}},
)
QWEN3_MOE = GgufTable(
    architecture="qwen3moe",
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
    outside=_OUTSIDE,
    block={
        **_NORMS,
        **_ATTENTION,
        **_HEAD_NORMS,
        "ffn_gate_inp.weight": _t("mlp.gate.weight"),
        "ffn_gate_exps.weight": _t("mlp.experts.*.gate_proj.weight", "experts"),
        "ffn_up_exps.weight": _t("mlp.experts.*.up_proj.weight", "experts"),
        "ffn_down_exps.weight": _t("mlp.experts.*.down_proj.weight", "experts"),
    },
    keys={
        **_SIZES,
        "expert_count": "num_experts",
        "expert_used_count": "num_experts_per_tok",
        "expert_feed_forward_length": "moe_intermediate_size",
    },
    optional_keys=_KV,
    neutral={**_NEUTRAL, "expert_weights_norm": (True,), "expert_weights_scale": (0, 1)},
    groups=_HEAD,
    # llama.cpp always normalises the chosen experts' weights
    fixed={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
)
_GEMMA_NORMS = {
    "attn_norm.weight": _t("input_layernorm.weight", "plus_one"),
    "post_attention_norm.weight": _t("post_attention_layernorm.weight", "plus_one"),
    "ffn_norm.weight": _t("pre_feedforward_layernorm.weight", "plus_one"),
    "post_ffw_norm.weight": _t("post_feedforward_layernorm.weight", "plus_one"),
}
_GEMMA_OUTSIDE = {**_OUTSIDE, "output_norm.weight": _t("model.norm.weight", "plus_one")}
_SOFTCAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
GEMMA2 = GgufTable(
    architecture="gemma2",
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    outside=_GEMMA_OUTSIDE,
    block={**_GEMMA_NORMS, **_ATTENTION, **_MLP},
    keys=_SIZES,
    optional_keys=_KV | _SOFTCAPS,
    neutral=_NEUTRAL,
    groups=_HEAD,
    defaults={
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 4096,
    },
    window=True,
    wide_blocks=46,
)
GEMMA3 = GgufTable(
    architecture="gemma3",
    model_type="gemma3_text",
    class_name="Gemma3ForCausalLM",
    outside=_GEMMA_OUTSIDE,
    block={
        **_GEMMA_NORMS,
        **_ATTENTION,
        **{name: _t(norm.name, "plus_one") for name, norm in _HEAD_NORMS.items()},
        **_MLP,
    },
    keys=_SIZES,
    optional_keys=_KV | _SOFTCAPS,
    neutral=_NEUTRAL,
    groups=_HEAD,
    defaults={"attn_logit_softcapping": None, "final_logit_softcapping": None},
    rope="local_and_global",
    window=True,
    wide_blocks=62,
)
PHI3 = GgufTable(
    architecture="phi3",
    model_type="phi3",
    class_name="Phi3ForCausalLM",
    outside=_OUTSIDE,
    block={
        **_NORMS,
        "attn_qkv.weight": _t("self_attn.qkv_proj.weight"),
        "attn_output.weight": _t("self_attn.o_proj.weight"),
        "ffn_up.weight": _t("mlp.gate_up_proj.weight"),
        "ffn_down.weight": _t("mlp.down_proj.weight"),
    },
    keys=_SIZES,
    optional_keys=_KV,
    neutral=_NEUTRAL,
    groups=_HEAD,
    fixed={"sliding_window": None},
    rope="partial",
    window=True,
    key_length=False,
)
GPT2 = GgufTable(
    architecture="gpt2",
    model_type="gpt2",
    class_name="GPT2LMHeadModel",
    outside={
        "token_embd.weight": _t("transformer.wte.weight"),
        "position_embd.weight": _t("transformer.wpe.weight"),
        "output_norm.weight": _t("transformer.ln_f.weight"),
        "output_norm.bias": _t("transformer.ln_f.bias"),
        "output.weight": _t("lm_head.weight", optional="head"),
    },
    block={
        "attn_norm.weight": _t("ln_1.weight"),
        "attn_norm.bias": _t("ln_1.bias"),
        "attn_qkv.weight": _t("attn.c_attn.weight", "transposed"),
        "attn_qkv.bias": _t("attn.c_attn.bias"),
        "attn_output.weight": _t("attn.c_proj.weight", "transposed"),
        "attn_output.bias": _t("attn.c_proj.bias"),
        "ffn_norm.weight": _t("ln_2.weight"),
        "ffn_norm.bias": _t("ln_2.bias"),
        "ffn_up.weight": _t("mlp.c_fc.weight", "transposed"),
        "ffn_up.bias": _t("mlp.c_fc.bias"),
        "ffn_down.weight": _t("mlp.c_proj.weight", "transposed"),
        "ffn_down.bias": _t("mlp.c_proj.bias"),
    },
    root="transformer.h.",
    keys={
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "block_count": "n_layer",
        "feed_forward_length": "n_inner",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    neutral=_NEUTRAL,
    groups=_HEAD,
    rope="none",
    key_length=False,
)
GGUF_TABLES = (MIXTRAL, MISTRAL, LLAMA, QWEN2, QWEN3, QWEN3_MOE, GEMMA2, GEMMA3, PHI3, GPT2)
"""Of one architecture, those with a condition stand first."""
