"""Llama and the families that share its block: separate q, k, v, o and a gated feed-forward."""

from __future__ import annotations

from pruning_core.families.base import Family, Fold

ATTENTION = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
)
GATED_MLP = (("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",))
ATTENTION_FOLD = Fold("self_attn.o_proj", ("self_attn.v_proj",), heads=True)
GATED_MLP_FOLD = Fold("mlp.down_proj", ("mlp.gate_proj", "mlp.up_proj"))

LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    blocks="model.layers",
    inputs=(*ATTENTION, *GATED_MLP),
    folds=(ATTENTION_FOLD, GATED_MLP_FOLD),
)
