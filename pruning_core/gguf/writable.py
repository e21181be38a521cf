"""Whether a checkpoint can be written as GGUF, and under which names and settings; without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pruning_core.checkpoints import config as configs
from pruning_core.errors import UnsupportedModel
from pruning_core.gguf.architectures import GgufTable, GgufTensorName
from pruning_core.gguf.tables import LLAMA, QWEN2, QWEN3

WRITABLE: Mapping[str, GgufTable] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
}
"""Tables by model type."""
POINTER = "/prune/output/format"
_ROPES = ("default", "linear", "llama3", "yarn")


def refuse(why: str) -> UnsupportedModel:
    """Return the refusal of GGUF for one reason."""
    return UnsupportedModel(
        f"This model cannot be written as GGUF: {why}",
        suggestions=("leave output.format at `safetensors`",),
        pointer=POINTER,
    )


def table_of(config: Mapping[str, Any]) -> GgufTable:
    """Return the names of a model that can be written.

    Raises:
        UnsupportedModel: it cannot.
    """
    table = WRITABLE.get(str(config.get("model_type")))
    if table is None:
        known = ", ".join(sorted(WRITABLE))
        raise refuse(f"its model_type is {config.get('model_type')}; written are {known}")
    windowed = config.get("use_sliding_window", table.model_type == "llama")
    if config.get("sliding_window") and windowed:
        raise refuse(
            "its attention sees a sliding window, which llama.cpp does not for this family"
        )
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise refuse(f"its activation is {config['hidden_act']}, and llama.cpp takes silu")
    kind = rope_of(config)["rope_type"]
    if kind not in _ROPES:
        raise refuse(
            f"its rotary positions are of the type {kind}; written are {', '.join(_ROPES)}"
        )
    return table


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `rope_parameters`, from the older keys where a configuration has those."""
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    parameters["rope_type"] = (
        parameters.get("rope_type") or parameters.pop("type", None) or "default"
    )
    parameters.setdefault("rope_theta", config.get("rope_theta", 10_000.0))
    return parameters


def head_dim_of(config: Mapping[str, Any]) -> int:
    """Return the channels of a head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def names_of(
    config: dict[str, Any], table: GgufTable, tensors: Iterable[str]
) -> dict[str, tuple[str, GgufTensorName]]:
    """Return the GGUF name of every tensor, and what the conversion does to it.

    Raises:
        UnsupportedModel: one has none.
    """
    known = {how.name: (name, how) for name, how in table.outside.items()}
    for block in range(configs.block_count(config)):
        for name, how in table.block.items():
            known[f"{table.root}{block}.{how.name}"] = (f"blk.{block}.{name}", how)
    odd = sorted(set(tensors) - known.keys())
    if odd:
        raise refuse(f"GGUF has no name for its tensor {odd[0]!r}")
    return {name: known[name] for name in tensors}
