"""OPT: a plain feed-forward with biases, decoder below `model.decoder`."""

from __future__ import annotations

from typing import Any

from pruning_core.families.base import (
    HEADS_TIED,
    LAYER_NORM,
    WIDTH_KEYS,
    Attention,
    Family,
    FeedForward,
)
from pruning_core.families.shapes import Shapes, linear, norm

_RESERVED_POSITIONS = 2


def _parameters(c: Any) -> tuple[Shapes, Shapes]:
    width, narrow = c.hidden_size, c.word_embed_proj_dim
    table = (c.vocab_size, narrow)
    outside: Shapes = {
        "model.decoder.embed_tokens.weight": table,
        "model.decoder.embed_positions.weight": (
            c.max_position_embeddings + _RESERVED_POSITIONS,
            width,
        ),
        "lm_head.weight": table,
    }
    if narrow != width:
        outside |= linear("model.decoder.project_in", narrow, width, bias=False)
        outside |= linear("model.decoder.project_out", width, narrow, bias=False)
    if c.do_layer_norm_before and not c._remove_final_layer_norm:
        outside |= _norm(c, "model.decoder.final_layer_norm")
    bias = c.enable_bias
    block: Shapes = {}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        block |= linear(f"self_attn.{name}", width, width, bias=bias)
    block |= linear("fc1", width, c.ffn_dim, bias=bias) | linear("fc2", c.ffn_dim, width, bias=bias)
    return outside, block | _norm(c, "self_attn_layer_norm") | _norm(c, "final_layer_norm")


def _norm(c: Any, path: str) -> Shapes:
    return norm(path, c.hidden_size, bias=True) if c.layer_norm_elementwise_affine else {}


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
    parameters=_parameters,
    norm="layer",
    width_keys={**WIDTH_KEYS, "neurons": "ffn_dim"},
    fixed={"hidden": LAYER_NORM, "kv_groups": HEADS_TIED},
)
