"""GPT-2: `Conv1D` weights stored as [inputs, outputs], q, k and v fused."""

from __future__ import annotations

from typing import Any

from pruning_core.families.base import (
    HEADS_TIED,
    LAYER_NORM,
    Attention,
    Family,
    FeedForward,
    FixedWhen,
    Parts,
)
from pruning_core.families.shapes import Shapes, norm


def _parameters(c: Any) -> tuple[Shapes, Shapes]:
    width, wide = c.n_embd, c.n_inner
    table = (c.vocab_size, width)
    outside = {
        "transformer.wte.weight": table,
        "transformer.wpe.weight": (c.n_positions, width),
        "lm_head.weight": table,
    }
    block = (
        _conv("attn.c_attn", width, 3 * width)
        | _conv("attn.c_proj", width, width)
        | _conv("mlp.c_fc", width, wide)
        | _conv("mlp.c_proj", wide, width)
    )
    block |= norm("ln_1", width, bias=True) | norm("ln_2", width, bias=True)
    return outside | norm("transformer.ln_f", width, bias=True), block


def _conv(path: str, inputs: int, outputs: int) -> Shapes:
    return {f"{path}.weight": (inputs, outputs), f"{path}.bias": (outputs,)}


def _qkv(config: Any) -> Parts:
    return (("q", config.n_embd), ("k", config.n_embd), ("v", config.n_embd))


GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    blocks="transformer.h",
    inputs=(("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",)),
    attention=Attention("attn.c_attn[q]", "attn.c_attn[k]", "attn.c_attn[v]", "attn.c_proj"),
    feedforward=FeedForward(("mlp.c_fc",), "mlp.c_proj"),
    norms=("ln_1", "ln_2"),
    outside={
        "transformer.wte.weight": ("vocabulary", "hidden"),
        "transformer.wpe.weight": (None, "hidden"),
        "transformer.ln_f.weight": ("hidden",),
        "transformer.ln_f.bias": ("hidden",),
        "lm_head.weight": ("vocabulary", "hidden"),
    },
    parameters=_parameters,
    norm="layer",
    fused={"attn.c_attn": _qkv},
    transposed=True,
    width_keys={
        "hidden": "n_embd",
        "neurons": "n_inner",
        "layers": "n_layer",
        "vocabulary": "vocab_size",
    },
    fixed={"hidden": LAYER_NORM, "kv_groups": HEADS_TIED},
    fixed_when=(
        FixedWhen(
            ("scale_attn_by_inverse_layer_idx",),
            ("layers",),
            "`scale_attn_by_inverse_layer_idx` divides each block's attention by the block's number, which would change",
        ),
    ),
)
