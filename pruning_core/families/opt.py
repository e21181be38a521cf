"""OPT: a plain feed-forward with biases, decoder below `model.decoder`."""

from __future__ import annotations

from pruning_core.families.base import (
    HEADS_TIED,
    LAYER_NORM,
    WIDTH_KEYS,
    Attention,
    Family,
    FeedForward,
)

OPT = Family(
    name="opt",
    model_types=("opt",),
    blocks="model.decoder.layers",
    inputs=(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.out_proj",),
        ("fc1",),
        ("fc2",),
    ),
    attention=Attention(
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"
    ),
    feedforward=FeedForward(("fc1",), "fc2"),
    norms=("self_attn_layer_norm", "final_layer_norm"),
    outside={
        "model.decoder.embed_tokens.weight": ("vocabulary", "hidden"),
        "model.decoder.embed_positions.weight": (None, "hidden"),
        "model.decoder.project_in.weight": ("hidden", None),
        "model.decoder.project_out.weight": (None, "hidden"),
        "model.decoder.final_layer_norm.weight": ("hidden",),
        "model.decoder.final_layer_norm.bias": ("hidden",),
        "lm_head.weight": ("vocabulary", "hidden"),
    },
    norm="layer",
    width_keys={**WIDTH_KEYS, "neurons": "ffn_dim"},
    fixed={"hidden": LAYER_NORM, "kv_groups": HEADS_TIED},
)
