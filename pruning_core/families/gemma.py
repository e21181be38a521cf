"""Gemma 2 and the text models of Gemma 3: Llama's matrices, other norms, masks that differ between blocks."""

from __future__ import annotations

from typing import Any

from pruning_core.families.base import OUTSIDE, Family
from pruning_core.families.llama import (
    ATTENTION,
    ATTENTION_INPUTS,
    MLP,
    MLP_INPUTS,
    NORMS,
)
from pruning_core.families.shapes import (
    Shapes,
    around,
    gated,
    grouped_attention,
    head_norms,
    norms,
)

_NORMS = (*NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


def _parameters(c: Any) -> tuple[Shapes, Shapes]:
    attention = grouped_attention(c, bias=c.attention_bias, output_bias=c.attention_bias)
    block = attention | gated(c) | norms(c, *_NORMS)
    return around(c), block | (head_norms(c) if c.model_type == "gemma3_text" else {})


GEMMA = Family(
    name="gemma",
    model_types=("gemma2", "gemma3_text"),
    blocks="model.layers",
    inputs=(*ATTENTION_INPUTS, *MLP_INPUTS),
    attention=ATTENTION,
    feedforward=MLP,
    norms=_NORMS,
    outside=OUTSIDE,
    parameters=_parameters,
    norm="rms_plus_one",
    heads_divide_width=frozenset({"gemma2", "gemma3_text"}),
    scaled_embedding=True,
    begins_windows=True,
)
