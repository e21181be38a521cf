"""What stock transformers reads in `config.json`: other spellings of a setting, and what it takes for one left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_EXPERTS = {"num_experts": "num_local_experts"}
SPELLINGS: Mapping[str, Mapping[str, str]] = {
    "gpt2": {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    "mixtral": _EXPERTS,
    "qwen3_moe": _EXPERTS,
    "gpt_oss": _EXPERTS,
}
"""Of sizes, by model type: another name, and the setting's own."""


def _sizes(
    vocabulary: int, hidden: int, neurons: int, layers: int, heads: int, positions: int
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": neurons,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": positions,
        "tie_word_embeddings": False,
    }


_MISTRAL = _sizes(32_000, 4_096, 14_336, 32, 32, 131_072) | {"num_key_value_heads": 8}
_QWEN = _sizes(151_936, 4_096, 22_016, 32, 32, 32_768) | {"num_key_value_heads": 32}
_GEMMA = _sizes(256_000, 2_304, 9_216, 26, 8, 8_192) | {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "attention_bias": False,
}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": _sizes(32_000, 4_096, 11_008, 32, 32, 2_048)
    | {"attention_bias": False, "mlp_bias": False},
    "mistral": _MISTRAL,
    "mixtral": _MISTRAL | {"num_local_experts": 8},
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128, "attention_bias": False},
    "qwen3_moe": _sizes(151_936, 2_048, 6_144, 24, 32, 32_768)
    | {"moe_intermediate_size": 768, "num_key_value_heads": 4}
    | {"num_local_experts": 128, "attention_bias": False},
    "gpt_oss": _sizes(201_088, 2_880, 2_880, 36, 64, 131_072)
    | {"num_key_value_heads": 8, "head_dim": 64}
    | {"num_local_experts": 128, "attention_bias": True},
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA | {"vocab_size": 262_208, "max_position_embeddings": 131_072},
    "phi": _sizes(51_200, 2_048, 8_192, 24, 32, 2_048) | {"qk_layernorm": False},
    "phi3": _sizes(32_064, 3_072, 8_192, 32, 32, 4_096),
    "opt": {
        "vocab_size": 50_272,
        "hidden_size": 768,
        "ffn_dim": 3_072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 2_048,
        "tie_word_embeddings": True,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
    },
    "gpt2": {
        "vocab_size": 50_257,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1_024,
        "tie_word_embeddings": True,
    },
}
"""Of the settings that are read here without transformers, by model type."""


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration under their own names, with what stock transformers takes for those left out.

    Null stands for what other settings decide, or counts as left out. Where a setting has two spellings the other name
    wins, as it does there.
    """
    model_type = str(config["model_type"])
    given = {key: value for key, value in config.items() if value is not None}
    other = SPELLINGS.get(model_type, {})
    own = {name: given[key] for key, name in other.items() if key in given}
    values = {**DEFAULTS[model_type], **given, **own}
    derived = _derived(model_type, values)
    null = {key for key in derived if key in config and config[key] is None}
    return derived | {key: value for key, value in values.items() if key not in null}


def setting(config: Mapping[str, Any], name: str) -> Any:
    """Return a setting by the name that most architectures have for it.

    Raises:
        KeyError: the architecture has no such setting.
    """
    own = SPELLINGS.get(str(config["model_type"]), {}).get(name, name)
    return completed(config)[own]


def _derived(model_type: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that others decide where they are left out."""
    if model_type == "gpt2":
        return {"n_inner": 4 * values["n_embd"]}
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    return {
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "word_embed_proj_dim": hidden,
    }


def spellings(config: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the keys under which a configuration gives a setting; its own name where it leaves it out."""
    other = SPELLINGS.get(str(config["model_type"]), {})
    keys = tuple(key for key in config if key == name or other.get(key) == name)
    return keys or (name,)
