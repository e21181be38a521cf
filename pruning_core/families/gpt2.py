"""GPT-2: `Conv1D` weights stored as [inputs, outputs], q, k and v fused."""

from __future__ import annotations

from typing import Any

from pruning_core.families.base import Family, Fold, Parts


def _qkv(config: Any) -> Parts:
    return (("q", config.n_embd), ("k", config.n_embd), ("v", config.n_embd))


GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    blocks="transformer.h",
    inputs=(("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",)),
    folds=(
        Fold("attn.c_proj", ("attn.c_attn[v]",), heads=True),
        Fold("mlp.c_proj", ("mlp.c_fc",)),
    ),
    fused={"attn.c_attn": _qkv},
)
