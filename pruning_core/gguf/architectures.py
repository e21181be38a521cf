"""What GGUF calls the tensors and settings of each architecture, and what llama.cpp's converter did to them. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Change = Literal["none", "query_rows", "key_rows", "plus_one", "transposed", "experts"]
"""What the converter did to a tensor: reordered the rows within each head of queries or keys, added 1 to a norm,
transposed it, or stacked the experts' matrices."""
Rope = Literal["plain", "partial", "local_and_global", "none"]


@dataclass(frozen=True)
class GgufTensorName:
    """A parameter's name in the checkpoint, below its block; `*` stands for an expert's number."""

    name: str
    change: Change = "none"
    optional: str = ""
    """Name of the group of which all are there, in every block, or none; empty for what must be there."""


@dataclass(frozen=True)
class GgufTable:
    """One architecture.

    Attributes:
        architecture: `general.architecture`.
        model_type, class_name: Of the checkpoint.
        outside, block: Tensors by their GGUF names, without `blk.N.`.
        root: Before the names outside the blocks and, with the block's number, within.
        keys: Settings by their GGUF names, each with its key in `config.json`.
        optional_keys: The same, of those that may be absent.
        neutral: Settings that `config.json` has no word for, with the values at which they do nothing.
        fixed: What `config.json` says of every model of this architecture.
        defaults: What llama.cpp takes for optional settings that are absent, by key in `config.json`.
        groups: What `config.json` says where an optional group of tensors is there.
        when: A setting that must be there and not zero for this table to hold.
        rope: How positions are rotated.
        window: Whether a sliding window can be said.
        key_length: Whether `config.json` can say how long a head is.
        wide_blocks: Number of blocks at which llama.cpp scales attention by hidden size over heads, else by a head's
            length; 0 where attention is always scaled by a head's length and `config.json` has no word for it.
    """

    architecture: str
    model_type: str
    class_name: str
    outside: Mapping[str, GgufTensorName]
    block: Mapping[str, GgufTensorName]
    root: str = "model.layers."
    keys: Mapping[str, str] = field(default_factory=dict)
    optional_keys: Mapping[str, str] = field(default_factory=dict)
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    when: str = ""
    rope: Rope = "plain"
    window: bool = False
    key_length: bool = True
    wide_blocks: int = 0
