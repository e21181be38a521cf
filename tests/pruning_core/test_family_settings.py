"""Settings that `config.json` spells otherwise or leaves out: read as stock transformers reads them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.families import FAMILIES
from pruning_core.families.settings import DEFAULTS, SPELLINGS, completed, spellings
from pruning_core.structure.layout import layout_of
from tests import tiny
from tests.pruning_core.runs import answers

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)
READ = {
    *("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "ffn_dim"),
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("max_position_embeddings", "tie_word_embeddings"),
    *("n_embd", "n_layer", "n_head", "n_positions", "num_local_experts"),
    *("attention_bias", "mlp_bias", "qk_layernorm", "enable_bias", "do_layer_norm_before"),
    *("layer_norm_elementwise_affine", "_remove_final_layer_norm"),
}
"""Sizes and switches that stock configurations have a default of."""


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_defaults_are_those_of_stock_transformers(model_type: str) -> None:
    names = CONFIG_MAPPING[model_type].attribute_map
    fields = dataclasses.fields(CONFIG_MAPPING[model_type])
    stock = {names.get(one.name, one.name): one.default for one in fields}
    stock = {name: value for name, value in stock.items() if name in READ}
    assert DEFAULTS[model_type] == {k: v for k, v in stock.items() if v is not None}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_spellings_are_those_of_stock_transformers(model_type: str) -> None:
    stock = CONFIG_MAPPING[model_type].attribute_map
    assert SPELLINGS.get(model_type, {}) == {k: v for k, v in stock.items() if v in READ}


@pytest.mark.parametrize(
    ("config", "setting", "value"),
    [
        ({"model_type": "gpt2", "hidden_size": 64}, "n_embd", 64),
        ({"model_type": "gpt2", "hidden_size": 64, "n_embd": 32}, "n_embd", 64),
        ({"model_type": "gpt2", "n_embd": 32, "hidden_size": 64}, "n_embd", 64),
        ({"model_type": "gpt2", "n_embd": 32}, "n_embd", 32),
        ({"model_type": "llama", "max_sequence_length": 64}, "max_position_embeddings", 2_048),
        ({"model_type": "gemma3_text"}, "head_dim", 256),
    ],
)
def test_a_setting_is_what_stock_transformers_makes_of_it(
    config: dict[str, Any], setting: str, value: int
) -> None:
    assert completed(config)[setting] == value
    fields = {key: one for key, one in config.items() if key != "model_type"}
    assert getattr(CONFIG_MAPPING[config["model_type"]](**fields), setting) == value


def test_a_setting_is_changed_under_every_name_that_the_file_has() -> None:
    assert spellings({"model_type": "gpt2"}, "n_layer") == ("n_layer",)
    both = {"model_type": "gpt2", "num_hidden_layers": 3, "n_layer": 3}
    assert spellings(both, "n_layer") == ("num_hidden_layers", "n_layer")
    assert spellings(both | {"model_type": "llama"}, "hidden_size") == ("hidden_size",)


OLD: dict[str, tuple[str, dict[str, Any], tuple[str, ...], dict[str, Any]]] = {
    "llama without positions and heads": (
        "llama",
        {"num_key_value_heads": 4},
        ("max_position_embeddings", "num_key_value_heads", "head_dim"),
        {"max_sequence_length": 128},
    ),
    "gpt2 by the common names": (
        "gpt2",
        {},
        ("n_embd", "n_layer", "n_head", "n_positions"),
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        },
    ),
    "gpt2 without its neurons": ("gpt2", {}, ("n_inner",), {}),
    "gemma3_text without its heads": (
        "gemma3_text",
        {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
        ("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
        {},
    ),
    "gemma2 without its heads": (
        "gemma2",
        {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256},
        ("num_attention_heads", "num_key_value_heads", "head_dim"),
        {},
    ),
    "mistral with no window": ("mistral", {"sliding_window": None}, (), {"sliding_window": None}),
    "mistral without key-value heads": (
        "mistral",
        {"num_attention_heads": 8, "num_key_value_heads": 8},
        ("num_key_value_heads",),
        {},
    ),
    "phi without key-value heads": (
        "phi",
        {"num_key_value_heads": 4},
        ("num_key_value_heads", "max_position_embeddings"),
        {},
    ),
    "phi3 with null": ("phi3", {"num_key_value_heads": 4}, (), {"num_key_value_heads": None}),
    "qwen2 with windows": (
        "qwen2",
        {},
        ("layer_types", "max_position_embeddings"),
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    ),
    "mixtral without positions": ("mixtral", {}, ("max_position_embeddings",), {}),
    "opt as wide as its embedding": (
        "opt",
        {"word_embed_proj_dim": 32},
        ("word_embed_proj_dim",),
        {},
    ),
    "opt without a final norm": (
        "opt",
        {"word_embed_proj_dim": 32, "_remove_final_layer_norm": True},
        (),
        {},
    ),
    "opt with norms after": ("opt", {"do_layer_norm_before": False}, (), {}),
}


def old(folder: Path, kind: str) -> Path:
    """Save a model whose configuration is as those of earlier days, or of other programs."""
    model_type, sizes, left_out, others = OLD[kind]
    tiny.save(folder, model_type, **sizes)
    path = folder / "config.json"
    content = json.loads(path.read_text())
    kept = {key: value for key, value in content.items() if key not in left_out}
    path.write_text(json.dumps(kept | others))
    return folder


@pytest.mark.parametrize("kind", OLD)
def test_an_old_configuration_describes_the_model_that_stock_opens(
    kind: str, tmp_path: Path
) -> None:
    folder = old(tmp_path / "m", kind)
    facts = inspect(folder)
    layout = layout_of(facts)
    stock: Any = CONFIG_MAPPING[facts.model_type].from_dict(json.loads(json.dumps(facts.config)))
    assert facts.max_positions == stock.max_position_embeddings
    assert facts.blocks == layout.sizes.layers == stock.num_hidden_layers
    assert facts.vocab_size == stock.vocab_size
    assert layout.heads == stock.num_attention_heads
    grouped = "num_key_value_heads" in {one.name for one in dataclasses.fields(stock)}
    assert layout.kv_heads == (stock.num_key_value_heads if grouped else layout.heads)
    per_head = getattr(stock, "head_dim", None) or stock.hidden_size // stock.num_attention_heads
    assert layout.head_dim == per_head


@pytest.mark.parametrize("kind", OLD)
def test_an_old_configuration_answers_as_in_stock_transformers(kind: str, tmp_path: Path) -> None:
    folder, ids = old(tmp_path / "m", kind), tiny.tokens(1, 24)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
    # float32 sums in another order
    torch.testing.assert_close(answers(folder, ids), expected, rtol=1e-5, atol=1e-5)
