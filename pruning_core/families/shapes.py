"""Shapes of the parameters that stock transformers builds for one configuration, in the words of its modules."""

from __future__ import annotations

from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
"""By name. Of a block within the block, outside the blocks within the causal model."""


def linear(path: str, inputs: int, outputs: int, *, bias: bool) -> Shapes:
    """Return the parameters of a linear layer."""
    return {f"{path}.weight": (outputs, inputs)} | ({f"{path}.bias": (outputs,)} if bias else {})


def norm(path: str, width: int, *, bias: bool = False) -> Shapes:
    """Return the parameters of a norm."""
    shape: Shape = (width,)
    return {f"{path}.weight": shape} | ({f"{path}.bias": shape} if bias else {})


def grouped_attention(
    c: Any, *, bias: bool, output_bias: bool, output: str = "self_attn.o_proj"
) -> Shapes:
    """Return the parameters of an attention with matrices of its own for queries, keys, values and output."""
    queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    return (
        linear("self_attn.q_proj", c.hidden_size, queries, bias=bias)
        | linear("self_attn.k_proj", c.hidden_size, keys, bias=bias)
        | linear("self_attn.v_proj", c.hidden_size, keys, bias=bias)
        | linear(output, queries, c.hidden_size, bias=output_bias)
    )


def head_norms(c: Any) -> Shapes:
    """Return the norms of queries and keys, head by head."""
    return norm("self_attn.q_norm", c.head_dim) | norm("self_attn.k_norm", c.head_dim)


def gated(c: Any, *, bias: bool = False) -> Shapes:
    """Return the parameters of a feed-forward with a gate."""
    wide = c.intermediate_size
    return (
        linear("mlp.gate_proj", c.hidden_size, wide, bias=bias)
        | linear("mlp.up_proj", c.hidden_size, wide, bias=bias)
        | linear("mlp.down_proj", wide, c.hidden_size, bias=bias)
    )


def norms(c: Any, *paths: str) -> Shapes:
    """Return norms as wide as the residual stream, without a bias."""
    return {name: shape for path in paths for name, shape in norm(path, c.hidden_size).items()}


def around(c: Any) -> Shapes:
    """Return what most architectures have outside their blocks."""
    table = (c.vocab_size, c.hidden_size)
    return {"model.embed_tokens.weight": table, "lm_head.weight": table} | norms(c, "model.norm")
