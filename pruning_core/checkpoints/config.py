"""`config.json`, read by a strict schema of our own before transformers sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pruning_core.checkpoints.bounded_json import MAX_DEPTH, is_deep, parse
from pruning_core.checkpoints.compression import STATEMENTS, require_plain
from pruning_core.errors import ModelInvalid, UnsupportedModel
from pruning_core.families import family_of, is_known
from pruning_core.families.base import Family
from pruning_core.families.settings import completed, setting

MAX_CONFIG_BYTES = 5_000_000
_MARKS = 200_000
# `auto_map` names Python files, the others may name kernels on a hub.
_NAMES_CODE = {"auto_map", "attn_implementation", "experts_implementation"}

_CLASS = re.compile(r"[A-Za-z_]\w{0,127}", re.ASCII)
_BOUNDS = {
    "hidden_size": 65_536, "n_embd": 65_536, "word_embed_proj_dim": 65_536,
    "intermediate_size": 1_048_576, "moe_intermediate_size": 1_048_576, "ffn_dim": 1_048_576, "n_inner": 1_048_576,
    "num_hidden_layers": 1_024, "n_layer": 1_024,
    "num_attention_heads": 1_024, "num_key_value_heads": 1_024, "n_head": 1_024, "head_dim": 4_096,
    "num_local_experts": 1_024, "num_experts": 1_024, "num_experts_per_tok": 1_024,
    "vocab_size": 4_194_304,
    "max_position_embeddings": 134_217_728, "n_positions": 134_217_728, "sliding_window": 134_217_728,
}  # fmt: skip
_OPTIONAL = {"n_inner", "sliding_window", "head_dim", "num_key_value_heads", "word_embed_proj_dim"}


def read_config(folder: Path) -> dict[str, Any]:
    """Return a cleaned `config.json`: bounded sizes, and nothing in it that can name code.

    Raises:
        ModelInvalid: the file is unreadable, or a size in it is absurd.
        UnsupportedModel: no family table knows this architecture, or the weights are quantised.
    """
    with (folder / "config.json").open("rb") as file:
        return parse_config(file.read(MAX_CONFIG_BYTES + 1))


def parse_config(raw: bytes) -> dict[str, Any]:
    """Return the cleaned content of a `config.json`.

    Raises:
        ModelInvalid, UnsupportedModel: as `read_config`.
    """
    if len(raw) > MAX_CONFIG_BYTES:
        raise ModelInvalid(f"config.json is larger than {MAX_CONFIG_BYTES} bytes")
    config = parse("config.json", raw, marks=_MARKS)
    if is_deep(config):
        raise ModelInvalid(f"config.json is nested more than {MAX_DEPTH} levels deep")
    _check_architecture(config)
    check_sizes(config)
    return {key: value for key, value in config.items() if _stays(key, value)}


def omitted(folder: Path) -> tuple[str, ...]:
    """Return the settings of a folder's `config.json` that are left out when it is read."""
    cleaned = read_config(folder)
    with (folder / "config.json").open("rb") as file:
        whole = parse("config.json", file.read(), marks=_MARKS)
    return tuple(key for key, value in whole.items() if value is not None and key not in cleaned)


def _stays(key: str, value: Any) -> bool:
    """Tell whether a setting can name no code, and is true of the result too.

    An underscore reaches into transformers' internals; a number does no harm there.
    """
    if not key.startswith("_"):
        return key not in _NAMES_CODE and key not in STATEMENTS
    return key == "_name_or_path" or value is None or isinstance(value, bool | int | float)


def _check_architecture(config: dict[str, Any]) -> None:
    model_type = config.get("model_type")
    family = _family(config)
    require_plain(config)
    if "configuration_files" in config:
        raise UnsupportedModel(
            "config.json sends stock transformers to other files by its version (configuration_files).",
            suggestions=("save the model with save_pretrained(): it writes one config.json",),
        )
    for key, alike in family.uniform.items():
        if config.get(key) not in (alike, None):
            raise UnsupportedModel(
                f"config.json: {key} is {config[key]!r}; {model_type} models are supported whose blocks are all "
                f"alike ({key} {alike!r})"
            )


def _family(config: dict[str, Any]) -> Family:
    """Return the table of an architecture; where there is none, name the text model within it."""
    model_type = config.get("model_type")
    if model_type is None:
        raise UnsupportedModel(
            "config.json has no model_type: stock transformers cannot tell which model this is.",
            suggestions=("use the config.json that the model was published with",),
        )
    inner = next((pair for pair in _inner_types(config) if is_known(pair[1])), None)
    if inner is None or is_known(model_type):
        return family_of(str(model_type))
    path, text_type = inner
    raise UnsupportedModel(
        f"model_type {model_type!r} is a model around a text model of the type {text_type!r} ({path}), and only the "
        "text model alone can be pruned.",
        suggestions=(
            "save it alone: load the model with stock transformers, call save_pretrained() of its `language_model` or "
            f"of a causal model built from {path}, and submit that folder",
        ),
    )


def _inner_types(config: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield where configurations lie within this one, and their model types."""
    for key, value in config.items():
        if isinstance(value, dict):
            if isinstance(value.get("model_type"), str):
                yield f"{path}{key}", value["model_type"]
            yield from _inner_types(value, f"{path}{key}.")


def check_sizes(config: dict[str, Any], source: str = "config.json") -> None:
    """Refuse absurd sizes, which `source` gives.

    Raises:
        ModelInvalid: one is absurd.
    """
    for key, bound in _BOUNDS.items():
        value = config.get(key)
        if key not in config or (value is None and key in _OPTIONAL):
            continue
        if type(value) is not int or not 0 < value <= bound:
            raise ModelInvalid(
                f"{source}: {key} is {value!r}; a whole number from 1 to {bound} is expected"
            )


def architecture(config: dict[str, Any]) -> str:
    """Return the class that the configuration names, or its model type."""
    names = config.get("architectures")
    if not (isinstance(names, list) and names and isinstance(names[0], str)):
        return str(config["model_type"])
    if not _CLASS.fullmatch(names[0]):
        raise ModelInvalid("config.json: architectures names no class: letters, digits and `_`")
    return names[0]


def block_count(config: dict[str, Any]) -> int:
    """Return the number of transformer blocks."""
    return int(setting(config, "num_hidden_layers"))


def vocabulary_size(config: dict[str, Any]) -> int:
    """Return the number of token ids."""
    return int(setting(config, "vocab_size"))


def embedding_width(config: dict[str, Any]) -> int:
    """Return the width of the token embedding."""
    return int(completed(config).get("word_embed_proj_dim") or setting(config, "hidden_size"))


def max_positions(config: dict[str, Any]) -> int:
    """Return the longest window that the model was made for, in tokens."""
    return int(setting(config, "max_position_embeddings"))
