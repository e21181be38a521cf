"""Rotary positions as a GGUF file states them, in the words of `config.json`."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pruning_core.errors import UnsupportedModel
from pruning_core.gguf.architectures import Rope
from pruning_core.gguf.header import GgufHeader, GgufTensor
from pruning_core.gguf.keys import Keys
from pruning_core.gguf.llama3_rope import recover

FACTORS = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TENSORS = frozenset({FACTORS, LONG, SHORT})
THETA = 10_000.0
"""llama.cpp's, where a file states none."""


def rope_config(
    keys: Keys, header: GgufHeader, rope: Rope, *, head_dim: int, context: int
) -> dict[str, Any]:
    """Return what `config.json` says of rotary positions.

    Raises:
        UnsupportedModel: the file states what no `config.json` can.
    """
    if rope == "none":
        return {}
    theta, width = _number(keys, "rope.freq_base", THETA), _width(keys, rope, head_dim)
    scaling = _scaling(keys, header, theta=theta, width=width, context=context)
    parameters = {"rope_theta": theta, **scaling}
    if rope == "local_and_global":
        local = _number(keys, "rope.freq_base_swa", THETA)
        both = {
            "full_attention": parameters,
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        }
        return _legacy(theta, scaling) | {"rope_local_base_freq": local, "rope_parameters": both}
    config = _legacy(theta, scaling)
    if rope == "partial":
        share = {"partial_rotary_factor": width / head_dim}
        config |= share
        parameters |= share
    if scaling["rope_type"] == "longrope":
        config["original_max_position_embeddings"] = scaling["original_max_position_embeddings"]
    return config | {"rope_parameters": parameters}


def _legacy(theta: float, scaling: dict[str, Any]) -> dict[str, Any]:
    """Return the same in the keys that transformers 4 reads."""
    plain = scaling["rope_type"] == "default"
    return {"rope_theta": theta, "rope_scaling": None if plain else dict(scaling)}


def _width(keys: Keys, rope: Rope, head_dim: int) -> int:
    width = int(_number(keys, "rope.dimension_count", head_dim))
    if rope != "partial" and width != head_dim:
        keys.refuse("rope.dimension_count", f"its heads are {head_dim} long, and all of it rotates")
    if not 0 < width <= head_dim or width % 2:
        keys.refuse("rope.dimension_count", f"its heads are {head_dim} long")
    return width


def _scaling(
    keys: Keys, header: GgufHeader, *, theta: float, width: int, context: int
) -> dict[str, Any]:
    there = ROPE_TENSORS & header.tensors.keys()
    linear = _number(keys, "rope.scale_linear", 1.0)
    factor = _number(keys, "rope.scaling.factor", linear)
    kind = keys.take("rope.scaling.type", "linear" if factor != 1 else "none")
    keys.drop("rope.scaling.finetuned")
    if FACTORS in there:
        if kind not in ("none", "linear") or (kind == "linear" and factor != 1) or len(there) > 1:
            keys.refuse("rope.scaling.type", f"the file scales positions by {FACTORS} as well")
        return _by_factors(header.tensors[FACTORS], theta, width)
    if there:
        return _longrope(keys, header, str(kind), width=width, context=context)
    if kind == "none" or (kind == "linear" and factor == 1):
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return _yarn(keys, factor, context)
    keys.refuse("rope.scaling.type", "`none`, `linear`, `yarn` and `longrope` are understood")


def _by_factors(tensor: GgufTensor, theta: float, width: int) -> dict[str, Any]:
    parameters = recover(_floats(tensor, FACTORS), theta, width)
    if parameters is None:
        raise UnsupportedModel(
            f"{FACTORS} of {tensor.file.name} stretches rotary positions in a way that no `rope_parameters` say "
            "(neither those of Llama 3 nor linear ones)",
            suggestions=("prune the safetensors checkpoint that the file was made from",),
        )
    return parameters


def _yarn(keys: Keys, factor: float, context: int) -> dict[str, Any]:
    """YaRN as llama.cpp and transformers agree on it: attention scaled by 0.1 ln(factor) + 1."""
    default = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    for key, neutral in (
        ("rope.scaling.attn_factor", 1.0),
        ("rope.scaling.yarn_attn_factor", default),
        ("rope.scaling.yarn_ext_factor", 1.0),
        ("rope.scaling.yarn_log_multiplier", 0.0),
    ):
        if not math.isclose(_number(keys, key, neutral), neutral, rel_tol=1e-5, abs_tol=1e-9):
            keys.refuse(key, f"transformers knows YaRN with {neutral:g} here")
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": int(
            _number(keys, "rope.scaling.original_context_length", context)
        ),
        "beta_fast": _number(keys, "rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": _number(keys, "rope.scaling.yarn_beta_slow", 1.0),
    }


def _longrope(
    keys: Keys, header: GgufHeader, kind: str, *, width: int, context: int
) -> dict[str, Any]:
    if kind not in ("none", "longrope", "linear"):
        keys.refuse("rope.scaling.type", f"the file scales positions by {LONG} as well")
    parameters: dict[str, Any] = {"rope_type": "longrope"}
    for name, key in ((LONG, "long_factor"), (SHORT, "short_factor")):
        tensor = header.tensors.get(name)
        if tensor is None or tensor.shape != (width // 2,):
            raise UnsupportedModel(f"{name} is missing or is not of {width // 2} factors")
        parameters[key] = list(_floats(tensor, name))
    original = int(_number(keys, "rope.scaling.original_context_length", context))
    return parameters | {
        "factor": context / original,
        "attention_factor": _number(keys, "rope.scaling.attn_factor", 1.0),
        "original_max_position_embeddings": original,
    }


def _number(keys: Keys, key: str, default: float) -> float:
    value = keys.take(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        keys.refuse(key, "a number is expected")
    return float(value)


def _floats(tensor: GgufTensor, name: str) -> Sequence[float]:
    """Return a short vector of float32."""
    if tensor.kind != "F32" or len(tensor.shape) != 1 or tensor.shape[0] > 1 << 16:
        raise UnsupportedModel(f"{name} of {tensor.file.name} is no short vector of F32")
    return struct.unpack(f"<{tensor.shape[0]}f", _bytes(tensor.file, tensor.offset, tensor.bytes))


def _bytes(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)
