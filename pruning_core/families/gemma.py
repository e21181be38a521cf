"""Gemma 2 and the text models of Gemma 3: Llama's matrices, other norms, masks that differ between blocks."""

from __future__ import annotations

from pruning_core.families.base import Family
from pruning_core.families.llama import ATTENTION, ATTENTION_FOLD, GATED_MLP, GATED_MLP_FOLD

GEMMA = Family(
    name="gemma",
    model_types=("gemma2", "gemma3_text"),
    blocks="model.layers",
    inputs=(*ATTENTION, *GATED_MLP),
    folds=(ATTENTION_FOLD, GATED_MLP_FOLD),
    begins_windows=True,
)
