"""A GGUF file as the checkpoint that it will become: configuration and tensors, from its header alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning_core.checkpoints import config as configs
from pruning_core.checkpoints.facts import CheckpointFacts, facts_of
from pruning_core.checkpoints.headers import TensorFacts
from pruning_core.checkpoints.origin import Gguf
from pruning_core.checkpoints.weight_files import Stored
from pruning_core.errors import ModelInvalid, UnsupportedModel
from pruning_core.gguf.architectures import GgufTable, GgufTensorName
from pruning_core.gguf.header import GgufHeader, GgufTensor
from pruning_core.gguf.keys import Keys
from pruning_core.gguf.parts import joined, parts_of
from pruning_core.gguf.rope import ROPE_TENSORS, rope_config
from pruning_core.gguf.tables import GGUF_TABLES

_IGNORED = ("attn_rot_embd.weight",)
"""Tensors of old files that llama.cpp does not read."""
_TOKENS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}


@dataclass(frozen=True)
class Wanted:
    """One tensor of the checkpoint.

    Attributes:
        stored: The GGUF tensor that holds it.
        how: What the converter did to it.
        shape: Of the checkpoint's tensor.
        expert: Which expert of a stack; None where it is not stacked.
    """

    stored: GgufTensor
    how: GgufTensorName
    shape: tuple[int, ...]
    expert: int | None = None


@dataclass(frozen=True)
class GgufModel:
    """What a GGUF file says.

    Attributes:
        parts: Its files.
        config: Content of `config.json`.
        wanted: Every tensor of the checkpoint, by name.
        bytes: Of the files.
        has_tokenizer: Whether it holds a vocabulary.
        pre: How its tokenizer splits text, in llama.cpp's words.
    """

    parts: tuple[Path, ...]
    config: dict[str, Any]
    wanted: dict[str, Wanted]
    bytes: int
    has_tokenizer: bool
    pre: str | None

    @property
    def facts(self) -> CheckpointFacts:
        """The facts of the checkpoint that the file will become, with the size of the file."""
        tensors = {
            name: TensorFacts("F32", tensor.shape, 0) for name, tensor in self.wanted.items()
        }
        return facts_of(self.config, Stored(tensors, {}, {}), gguf=self.origin)

    @property
    def origin(self) -> Gguf:
        """The files, in short."""
        sizes: Counter[str] = Counter()
        for tensor in self.wanted.values():
            sizes[tensor.stored.kind] += tensor.stored.bytes
        return Gguf(self.bytes, sizes.most_common(1)[0][0], self.pre)


def read_model(path: Path) -> GgufModel:
    """Return what a GGUF file, with the parts beside it, says.

    Raises:
        ModelInvalid: it is broken, or lacks tensors or parts.
        UnsupportedModel: it says what the checkpoint cannot.
    """
    parts = parts_of(path)
    header = joined(parts)
    table = _table(path.name, header)
    config = _config(path.name, header, table)
    wanted = dict(_wanted(path.name, header, table, config))
    groups = {name for tensor in wanted.values() if (name := tensor.how.optional)}
    for name in groups:
        config |= table.groups.get(name, {})
    tokens = "tokenizer.ggml.model" in header.values
    pre = header.values.get("tokenizer.ggml.pre")
    said = pre if isinstance(pre, str) else None
    return GgufModel(parts, config, wanted, header.bytes, has_tokenizer=tokens, pre=said)


def _table(file: str, header: GgufHeader) -> GgufTable:
    kind, name = (
        header.values.get("general.type", "model"),
        header.values.get("general.architecture"),
    )
    if kind != "model":
        raise UnsupportedModel(
            f"{file} is a GGUF file of the type {kind!r}; a whole model is expected"
        )
    for table in GGUF_TABLES:
        if table.architecture == name and (
            not table.when or header.values.get(f"{name}.{table.when}")
        ):
            return table
    known = ", ".join(sorted({table.architecture for table in GGUF_TABLES}))
    raise UnsupportedModel(
        f"{file} is a GGUF file of the architecture {name!r}; those that can be read are: {known}",
        suggestions=("prune the safetensors checkpoint that the file was made from",),
    )


def _config(file: str, header: GgufHeader, table: GgufTable) -> dict[str, Any]:
    keys = Keys(file, header, table.architecture)
    config: dict[str, Any] = {
        "architectures": [table.class_name],
        "model_type": table.model_type,
        "dtype": "float32",
        "tie_word_embeddings": True,
        **table.fixed,
        **{key: keys.need(name) for name, key in table.keys.items()},
    }
    for name, key in table.optional_keys.items():
        default = table.defaults.get(key, config["num_attention_heads"])
        config[key] = keys.take(name, default) or None
    configs.check_sizes(config, file)
    head_dim = _head_dim(keys, config, table)
    config |= _window(keys, table, configs.block_count(config))
    config |= _scale(keys, table, config, head_dim)
    context = configs.max_positions(config)
    config |= rope_config(keys, header, table.rope, head_dim=head_dim, context=context)
    config["vocab_size"] = _vocabulary(file, header, keys)
    config |= {key: header.values.get(name) for key, name in _TOKENS.items()}
    keys.check_rest(table.neutral)
    return config


def _head_dim(keys: Keys, config: dict[str, Any], table: GgufTable) -> int:
    hidden, heads = configs.embedding_width(config), _heads(config)
    length = keys.take("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "attention.key_length_swa", "attention.value_length_swa"):
        if keys.take(key, length) != length:
            keys.refuse(key, f"attention.key_length is {length}")
    if not isinstance(length, int) or (not table.key_length and length * heads != hidden):
        keys.refuse("attention.key_length", f"a {table.model_type} model has {hidden // heads}")
    if table.key_length and (length * heads != hidden or table.model_type != "qwen2"):
        config["head_dim"] = length
    return length


def _heads(config: dict[str, Any]) -> int:
    return int(config.get("num_attention_heads") or config["n_head"])


def _window(keys: Keys, table: GgufTable, blocks: int) -> dict[str, Any]:
    """Return what the file says of sliding windows."""
    if not table.window:
        if keys.take("attention.sliding_window", 0):
            keys.refuse("attention.sliding_window", f"{table.model_type} models have none here")
        return {}
    window = keys.take("attention.sliding_window", table.defaults.get("sliding_window"))
    if not table.wide_blocks:
        return {"sliding_window": window or None}
    if not window:
        keys.refuse("attention.sliding_window", f"{table.model_type} models have one")
    pattern = keys.take_array("attention.sliding_window_pattern")
    if pattern is None:
        return {"sliding_window": window}
    if isinstance(pattern, int) and not isinstance(pattern, bool) and pattern > 0:
        pattern = tuple((block + 1) % pattern != 0 for block in range(blocks))
    if not isinstance(pattern, tuple) or len(pattern) != blocks:
        keys.refuse("attention.sliding_window_pattern", f"one entry for each of {blocks} blocks")
    kinds = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    return {"sliding_window": window, "layer_types": kinds}


def _scale(keys: Keys, table: GgufTable, config: dict[str, Any], head_dim: int) -> dict[str, Any]:
    """Return what the file says of the scale of attention scores, as the length whose root divides them."""
    wide = table.wide_blocks and configs.block_count(config) == table.wide_blocks
    usual = configs.embedding_width(config) // _heads(config) if wide else head_dim
    scale = keys.take("attention.scale", 0) or usual**-0.5
    length = scale**-2 if isinstance(scale, int | float) and scale > 0 else math.nan
    if not math.isclose(length, round(length) if length < 1e9 else 0, rel_tol=1e-4):
        keys.refuse("attention.scale", "it is no root of a whole number")
    if table.wide_blocks:
        return {"query_pre_attn_scalar": round(length)}
    if round(length) != head_dim:
        keys.refuse(
            "attention.scale", f"{table.model_type} models divide by the root of {head_dim}"
        )
    return {}


def _vocabulary(file: str, header: GgufHeader, keys: Keys) -> int:
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelInvalid(f"{file} lacks the tensor 'token_embd.weight'")
    rows = embedding.shape[0]
    said, tokens = keys.take("vocab_size", rows), header.lengths.get("tokenizer.ggml.tokens", 0)
    if said != rows or tokens > rows:
        raise ModelInvalid(
            f"{file} names {max(said, tokens)} tokens, and its token_embd.weight holds {rows}"
        )
    return rows


def _wanted(
    file: str, header: GgufHeader, table: GgufTable, config: dict[str, Any]
) -> Iterator[tuple[str, Wanted]]:
    """Yield every tensor of the checkpoint by name.

    Raises:
        ModelInvalid: one is missing.
        UnsupportedModel: the file holds others.
    """
    blocks = configs.block_count(config)
    names = {name: (how, how.name) for name, how in table.outside.items()}
    for block in range(blocks):
        for name, how in table.block.items():
            names[f"blk.{block}.{name}"] = (how, f"{table.root}{block}.{how.name}")
    _check_names(file, header, table, names)
    for name, (how, target) in names.items():
        if name in header.tensors:
            yield from _made(file, name, header.tensors[name], how, target, config)


def _check_names(
    file: str,
    header: GgufHeader,
    table: GgufTable,
    names: dict[str, tuple[GgufTensorName, str]],
) -> None:
    there = header.tensors.keys()
    groups = {how.optional for name, (how, _) in names.items() if name in there}
    missing = [
        name
        for name, (how, _) in names.items()
        if name not in there and (not how.optional or how.optional in groups)
    ]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelInvalid(
            f"{file} lacks the tensor {missing[0]!r}{more}, of which a {table.architecture} model is made"
        )
    extra = sorted(
        name for name in there - names.keys() - ROPE_TENSORS if not name.endswith(_IGNORED)
    )
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise UnsupportedModel(
            f"{file} holds the tensor {extra[0]!r}{more}, which no {table.model_type} checkpoint has a place for",
            suggestions=("prune the safetensors checkpoint that the file was made from",),
        )


def _made(
    file: str,
    name: str,
    stored: GgufTensor,
    how: GgufTensorName,
    target: str,
    config: dict[str, Any],
) -> Iterator[tuple[str, Wanted]]:
    """Yield the tensors of the checkpoint that one of the file's becomes."""
    shape = stored.shape
    if how.change == "experts":
        experts = config.get("num_local_experts", config.get("num_experts"))
        if len(shape) != 3 or shape[0] != experts:
            raise ModelInvalid(
                f"{file}: {name!r} of shape {list(shape)} holds no {experts} experts"
            )
        for expert in range(shape[0]):
            yield (
                target.replace("*", str(expert)),
                Wanted(stored, how, shape[1:], expert),
            )
        return
    if len(shape) > 2 or (how.change == "transposed" and len(shape) != 2):
        raise ModelInvalid(f"{file}: {name!r} has the shape {list(shape)}")
    heads = {
        "query_rows": config.get("num_attention_heads"),
        "key_rows": config.get("num_key_value_heads"),
    }.get(how.change)
    if heads and shape[0] % (2 * heads):
        raise ModelInvalid(f"{file}: {name!r} of {shape[0]} rows does not hold {heads} heads")
    yield target, Wanted(stored, how, shape[::-1] if how.change == "transposed" else shape)
