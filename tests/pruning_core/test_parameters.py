"""The parameters that a table calls for are those that stock transformers builds, for every configuration of a family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.families import FAMILIES, family_of
from pruning_core.families.parameters import parameters
from pruning_core.families.settings import DEFAULTS
from pruning_core.families.shapes import Shapes
from tests import tiny

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)

DERIVED = ("num_key_value_heads", "head_dim", "n_inner", "word_embed_proj_dim")
"""Settings that others decide where they are left out."""


def built(config: dict[str, Any]) -> tuple[Shapes, int]:
    """Return what stock transformers builds: shapes outside experts, and the number of all parameters."""
    made = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(made)
    named = dict(model.named_parameters())
    assert set(model.state_dict()) - set(named) <= {"lm_head.weight"}  # no buffers are stored
    return dense({name: tuple(one.shape) for name, one in named.items()}), model.num_parameters()


def dense(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if ".experts." not in name}


def agree(config: dict[str, Any], *, if_it_opens: bool = False) -> None:
    expected = parameters(family_of(config["model_type"]), config)
    try:
        shapes, count = built(config)
    except (TypeError, ValueError, StrictDataclassError):
        assert if_it_opens
        return
    assert dense(expected) == shapes
    assert sum(torch.Size(shape).numel() for shape in expected.values()) == count


def stored_config(model_type: str, **changes: Any) -> dict[str, Any]:
    """Return the content of a config.json of one block."""
    return dict(json.loads(tiny.config(model_type).to_json_string(use_diff=False)) | changes)


def one_block(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with what there is once per block cut down to one block."""
    once = {key: 1 for key in ("n_layer", "num_hidden_layers") if key in config}
    types = {"layer_types": config["layer_types"][:1]} if config.get("layer_types") else {}
    return config | once | types


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_table_names_what_stock_transformers_saves(model_type: str, tmp_path: Path) -> None:
    facts = inspect(tiny.save(tmp_path / "m", model_type))
    family = family_of(model_type)
    expected = parameters(family, facts.config)
    for inside, stored in family.file_names:
        expected = {name.replace(inside, stored): shape for name, shape in expected.items()}
    assert {name: one.shape for name, one in facts.tensors.items()} == expected


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_setting_that_decides_shapes_is_read_as_stock_reads_it(model_type: str) -> None:
    """Left out, turned round, and null: each once."""
    config = one_block(stored_config(model_type))
    agree(config)
    for key in (*DEFAULTS[model_type], *DERIVED):
        aliases = {key, "num_experts"} if key == "num_local_experts" else {key}
        left_out = {name: value for name, value in config.items() if name not in aliases}
        if key not in ("n_layer", "num_hidden_layers"):  # of whole models: below
            agree(left_out, if_it_opens="num" in key or "head" in key)
        if isinstance(DEFAULTS[model_type].get(key), bool):
            agree(config | {key: not config[key]})
        if key in DERIVED and key in config:
            agree(config | {key: None}, if_it_opens=True)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_configuration_without_sizes_is_that_of_stock_s_own_model(model_type: str) -> None:
    layers = family_of(model_type).width_keys["layers"]
    agree({"model_type": model_type, layers: 1})


@pytest.mark.parametrize("name", ["num_experts", "num_local_experts"])
def test_the_number_of_experts_has_two_names(name: str) -> None:
    config = one_block(stored_config("qwen3_moe"))
    for key in ("num_experts", "num_local_experts"):
        config.pop(key, None)
    agree(config | {name: 3})
