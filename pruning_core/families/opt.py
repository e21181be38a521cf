"""OPT: a plain feed-forward with biases, decoder below `model.decoder`."""

from __future__ import annotations

from pruning_core.families.base import Family, Fold

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
    folds=(
        Fold("self_attn.out_proj", ("self_attn.v_proj",), heads=True),
        Fold("fc2", ("fc1",)),
    ),
)
