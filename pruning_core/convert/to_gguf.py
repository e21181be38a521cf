"""A finished checkpoint as a GGUF file for llama.cpp, read back and compared tensor by tensor.

Matrices become F16 or Q8_0 (blocks of 32 weights, each in 127ths of the block's largest), vectors stay F32,
as llama.cpp's own converter does it. Zeros stay zeros in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType, dequantize, quantize
from gguf.quants import quant_shape_to_byte_shape
from safetensors import safe_open

from pruning_core.checkpoints.facts import CheckpointFacts, inspect
from pruning_core.convert.from_gguf import values
from pruning_core.convert.gguf_vocabulary import add_vocabulary
from pruning_core.errors import OutputDoesNotLoad, OutputOverflow
from pruning_core.gguf.file import read_model
from pruning_core.gguf.llama3_rope import factors_of
from pruning_core.gguf.rope import FACTORS
from pruning_core.gguf.writable import head_dim_of, names_of, rope_of, table_of
from pruning_core.spec.output import GgufType
from pruning_core.spec.report_parts.files import GgufReport

_KINDS = {"f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}
_FILE_TYPES = {"f16": 1, "q8_0": 7}
_BLOCK = 32
_STEPS = 127
Floats = npt.NDArray[np.float32]


@dataclass
class _Compared:
    error: float = 0.0
    norm: float = 0.0
    worst: float = 0.0
    underflows: int = 0

    def add(self, before: Floats, after: Floats) -> None:
        exact, rounded = before.astype(np.float64), after.astype(np.float64)
        error, norm = float(np.square(exact - rounded).sum()), float(np.square(exact).sum())
        self.error += error
        self.norm += norm
        self.worst = max(self.worst, (error / norm) ** 0.5 if norm else 0.0)
        self.underflows += int(((exact != 0) & (rounded == 0)).sum())


def file_name(kind: GgufType) -> str:
    """Return what the file is called beside the checkpoint."""
    return f"model-{kind}.gguf"


def write(
    folder: Path,
    path: Path,
    kind: GgufType,
    pre: str | None,
    alive: Callable[[], None] = lambda: None,
) -> GgufReport:
    """Write the file, read it back, and return what it holds of the checkpoint; one tensor at a time is in memory.

    Args:
        folder: A complete checkpoint.
        path: The file.
        kind: Type of its matrices.
        pre: How llama.cpp calls the way its tokenizer splits text, where the source said so.
        alive: Called after every tensor.

    Raises:
        UnsupportedModel: GGUF cannot say what the checkpoint says.
        OutputOverflow: a weight is beyond the type's largest number.
        OutputDoesNotLoad: what is read back is not what was written.
    """
    facts = inspect(folder)
    table = table_of(facts.config)
    with closing(GGUFWriter(path, table.architecture)) as writer:
        _fill(writer, folder, facts, kind, pre, alive)
    return _compared(path, folder, facts, kind, alive)


def _fill(
    writer: GGUFWriter,
    folder: Path,
    facts: CheckpointFacts,
    kind: GgufType,
    pre: str | None,
    alive: Callable[[], None],
) -> None:
    names = names_of(facts.config, table_of(facts.config), facts.tensors)
    _add_settings(writer, facts, kind)
    add_vocabulary(writer, folder, facts.config, pre)
    factors = _rope_factors(facts)
    if factors is not None:
        writer.add_tensor_info(FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for name, (stored, _) in names.items():
        _announce(writer, stored, facts.tensors[name].shape, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for name, (_, how) in names.items():
        weight = _halved(_read(folder, facts, name), facts.config, how.change)
        writer.write_tensor_data(_packed(name, weight, _kind(weight.shape, kind)))
        alive()


def _rope_factors(facts: CheckpointFacts) -> Floats | None:
    rope = rope_of(facts.config)
    if rope["rope_type"] != "llama3":
        return None
    factors = factors_of(rope, float(rope["rope_theta"]), head_dim_of(facts.config))
    return np.array(factors, dtype=np.float32)


def _announce(writer: GGUFWriter, stored: str, shape: tuple[int, ...], kind: GgufType) -> None:
    tensor_kind = _kind(shape, kind)
    plain = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}.get(
        tensor_kind
    )
    if plain is not None:
        size = math.prod(shape) * np.dtype(plain).itemsize
        writer.add_tensor_info(stored, shape, np.dtype(plain), size, tensor_kind)
        return
    byte_shape = quant_shape_to_byte_shape(shape, tensor_kind)
    writer.add_tensor_info(
        stored, byte_shape, np.dtype(np.uint8), math.prod(byte_shape), tensor_kind
    )


def _add_settings(writer: GGUFWriter, facts: CheckpointFacts, kind: GgufType) -> None:
    config, table = facts.config, table_of(facts.config)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(2)
    for name, key in {**table.keys, **table.optional_keys}.items():
        value = config.get(key) or config["num_attention_heads"]
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{table.architecture}.{name}", value)
    writer.add_vocab_size(facts.vocab_size)
    head_dim, rope = head_dim_of(config), rope_of(config)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope["rope_type"] == "yarn":
        original = rope.get("original_max_position_embeddings") or facts.max_positions
        writer.add_rope_scaling_orig_ctx_len(int(original))
        writer.add_rope_scaling_yarn_beta_fast(float(rope.get("beta_fast") or 32))
        writer.add_rope_scaling_yarn_beta_slow(float(rope.get("beta_slow") or 1))


def _read(folder: Path, facts: CheckpointFacts, name: str) -> Floats:
    with safe_open(folder / facts.files[name], framework="pt") as opened:
        tensor: Floats = opened.get_tensor(name).to(torch.float32).numpy()
    return tensor


def _kind(shape: tuple[int, ...], kind: GgufType) -> GGMLQuantizationType:
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    whole = shape[-1] % _BLOCK == 0
    return _KINDS[kind] if whole else GGMLQuantizationType.F16


def _halved(weight: Floats, config: dict[str, Any], change: str) -> Floats:
    """Interleave the two halves of each head, as llama.cpp rotates them: the inverse of what reading does."""
    key = {"query_rows": "num_attention_heads", "key_rows": "num_key_value_heads"}.get(change)
    if key is None:
        return weight
    heads = int(config.get(key) or config["num_attention_heads"])
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def _packed(name: str, weight: Floats, kind: GGMLQuantizationType) -> npt.NDArray[Any]:
    if kind == GGMLQuantizationType.F32:
        return weight
    with np.errstate(over="ignore", invalid="ignore"):
        packed: npt.NDArray[Any] = weight.astype(np.float16) if kind == GGMLQuantizationType.F16 else quantize(weight, kind)  # fmt: skip
        back = dequantize(packed, kind)
    if not np.isfinite(back).all():
        raise OutputOverflow(
            f"{name} has weights up to {float(np.abs(weight).max()):.3g}, which {kind.name} does not reach",
            suggestions=("leave output.format at `safetensors`",),
            pointer="/prune/output/format",
        )
    return packed


def _compared(
    path: Path, folder: Path, facts: CheckpointFacts, kind: GgufType, alive: Callable[[], None]
) -> GgufReport:
    """Read the file as any GGUF file is read here, and compare settings and tensors with the checkpoint's."""
    model, compared = read_model(path), _Compared()
    _check_config(model.config, facts)
    if model.wanted.keys() != facts.tensors.keys():
        odd = sorted(model.wanted.keys() ^ facts.tensors.keys())
        raise OutputDoesNotLoad(f"{path.name} does not hold the checkpoint's tensors: {odd[:4]}")
    for name, wanted in model.wanted.items():
        before, after = _read(folder, facts, name), values(wanted, model.config)
        if before.shape != after.shape or not (np.abs(before - after) <= _bound(before, wanted.stored.kind)).all():  # fmt: skip
            raise OutputDoesNotLoad(f"{path.name}: {name} read back is not what was written")
        compared.add(before, after)
        alive()
    return GgufReport(
        file=path.name,
        type=kind,
        bytes=path.stat().st_size,
        underflows=compared.underflows,
        relative_error=(compared.error / compared.norm) ** 0.5 if compared.norm else 0.0,
        largest_relative_error=compared.worst,
    )


def _bound(weight: Floats, kind: str) -> Floats:
    """Return how far a weight may be from itself: half a step of the type, and of nothing where it is zero."""
    if kind == "F32":
        return np.zeros_like(weight)
    if kind == "F16":
        return np.abs(weight) * np.float32(2**-11) + np.float32(2**-25)
    blocks = np.abs(weight).reshape(-1, _BLOCK).max(axis=1, keepdims=True)
    # half a step, and what rounding the step itself to float16 moves the largest by
    bound = blocks * np.float32(0.5 / _STEPS + 2**-10) + np.float32(_STEPS * 2**-24)
    wide = np.broadcast_to(bound, (blocks.shape[0], _BLOCK)).reshape(weight.shape)
    limits: Floats = np.where(weight == 0, np.float32(0), wide)
    return limits


def _check_config(config: dict[str, Any], facts: CheckpointFacts) -> None:
    """Refuse a file of which a setting that decides numbers reads otherwise than the checkpoint's."""
    own, table = facts.config, table_of(facts.config)
    keys = {*table.keys.values(), *table.optional_keys.values(), "vocab_size"}
    wanted = {key: own.get(key) or own["num_attention_heads"] for key in keys}
    wanted |= {"head_dim": head_dim_of(own), "rope_theta": float(rope_of(own)["rope_theta"])}
    read = config | {"head_dim": head_dim_of(config)}
    for key, value in wanted.items():
        if not np.isclose(float(value), float(read[key]), rtol=1e-6, atol=0):
            raise OutputDoesNotLoad(f"the GGUF file says {key} {read[key]}, the checkpoint {value}")
