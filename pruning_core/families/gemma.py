"""Gemma 2 and the text models of Gemma 3: Llama's matrices, other norms, masks that differ between blocks."""

from __future__ import annotations

from pruning_core.families.base import OUTSIDE, Family
from pruning_core.families.llama import ATTENTION, ATTENTION_INPUTS, MLP, MLP_INPUTS, NORMS

GEMMA = Family(
    name="gemma",
    model_types=("gemma2", "gemma3_text"),
    blocks="model.layers",
    inputs=(*ATTENTION_INPUTS, *MLP_INPUTS),
    attention=ATTENTION,
    feedforward=MLP,
    norms=(*NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    outside=OUTSIDE,
    norm="rms_plus_one",
    heads_divide_width=frozenset({"gemma2", "gemma3_text"}),
    scaled_embedding=True,
    begins_windows=True,
)
