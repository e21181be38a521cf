"""What headers tell is refused at submit: what is missing, what has another shape; and what stock leaves aside is not counted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from pruning_core.checkpoints.config import read_config
from pruning_core.checkpoints.facts import CheckpointFacts, facts_of, inspect
from pruning_core.checkpoints.headers import read_header
from pruning_core.checkpoints.weight_files import Stored, merged
from pruning_core.errors import ModelInvalid, PruningError, UnsupportedModel
from pruning_core.families import FAMILIES, family_of
from pruning_core.families.llama import LLAMA
from pruning_core.families.parameters import embedding
from pruning_core.structure.layout import layout_of
from tests import tiny

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)
WEIGHTS = "model.safetensors"
Tensors = dict[str, torch.Tensor]
Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Folders of tiny models by type, each made once and never changed."""
    root = tmp_path_factory.mktemp("saved")

    def folder(model_type: str) -> Path:
        found = root / model_type
        return found if found.is_dir() else tiny.save(found, model_type)

    return folder


def copied(source: Path, target: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """Copy a folder, with its tensors changed."""
    shutil.copytree(source, target)
    tensors = change(load_file(target / WEIGHTS))
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    return target


def message(error: PruningError) -> str:
    return " ".join((error.message, *error.suggestions))


def classes(names: list[str]) -> dict[str, str]:
    """Return one name of every class: the same parameter of other blocks and experts is of the same class."""
    return {re.sub(r"\.\d+\.", ".*.", name): name for name in names}


def facts_with(folder: Path, tensors: dict[str, Any]) -> CheckpointFacts:
    return facts_of(read_config(folder), merged({WEIGHTS: tensors}))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_without_any_one_of_its_tensors_a_model_is_refused(model_type: str, saved: Saved) -> None:
    folder = saved(model_type)
    header = read_header(folder / WEIGHTS)
    for name in classes([*header]).values():
        with pytest.raises(ModelInvalid) as refused:
            facts_with(folder, {key: one for key, one in header.items() if key != name})
        leaf = name.rpartition(".experts.")[2].rpartition("layers.")[2]
        assert WEIGHTS in refused.value.message
        assert leaf in refused.value.message


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_with_another_shape_of_any_one_of_its_tensors_a_model_is_refused(
    model_type: str, saved: Saved
) -> None:
    folder = saved(model_type)
    header = read_header(folder / WEIGHTS)
    for name in classes([*header]).values():
        one = header[name]
        for shape in ((*one.shape[:-1], one.shape[-1] + 1), (*one.shape, 1), one.shape[:-1]):
            with pytest.raises(ModelInvalid, match=re.escape(f"{WEIGHTS}: {name} has shape")):
                facts_with(folder, header | {name: replace(one, shape=shape)})


SIZES = {"num_attention_heads": 8, "n_head": 8, "num_key_value_heads": 4, "head_dim": 4}
SIZES |= {"hidden_size": 64, "n_embd": 64, "intermediate_size": 40, "n_inner": 40, "ffn_dim": 40}
SIZES |= {"moe_intermediate_size": 40, "num_local_experts": 3, "word_embed_proj_dim": 8}
SIZES |= {"vocab_size": 299, "n_positions": 255}
DECIDE_NOTHING = {
    ("qwen3_moe", "intermediate_size"),
    *((model_type, "num_attention_heads") for model_type in ("opt",)),
    ("gpt2", "n_head"),
}
"""Sizes of no parameter: heads of a family that has no head size of its own."""


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_configuration_of_other_sizes_is_refused(model_type: str, saved: Saved) -> None:
    config, header = read_config(saved(model_type)), read_header(saved(model_type) / WEIGHTS)
    stock = {one.name for one in fields(CONFIG_MAPPING[model_type])}
    for key in SIZES.keys() & config.keys() & stock:
        if (model_type, key) not in DECIDE_NOTHING:
            with pytest.raises(ModelInvalid, match=r"config\.json calls for"):
                facts_of(config | {key: SIZES[key]}, merged({WEIGHTS: header}))


def stock_count(folder: Path) -> int:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return sum(one.numel() for one in dict(model.named_parameters()).values())


def with_masks(tensors: Tensors) -> Tensors:
    """Add the buffers that older versions of GPT-2 saved."""
    for block in range(tiny.BLOCKS):
        tensors[f"transformer.h.{block}.attn.bias"] = torch.ones(1, 1, 256, 256).tril()
        tensors[f"transformer.h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
    return tensors


def with_frequencies(tensors: Tensors) -> Tensors:
    for block in range(tiny.BLOCKS):
        tensors[f"model.layers.{block}.self_attn.rotary_emb.inv_freq"] = torch.ones(1_000)
    return tensors


def with_head(tensors: Tensors) -> Tensors:
    """Store a tied head as well."""
    return tensors | {LLAMA.head: tensors["model.embed_tokens.weight"].clone()}


def with_head_alone(tensors: Tensors) -> Tensors:
    return {
        LLAMA.head if name == "model.embed_tokens.weight" else name: one
        for name, one in tensors.items()
    }


def base(tensors: Tensors) -> Tensors:
    """Leave out the prefix, as a saved base model does."""
    return {name.partition(".")[2]: one for name, one in tensors.items()}


ASIDE: dict[str, tuple[str, Callable[[Tensors], Tensors]]] = {
    "masks of gpt2": ("gpt2", with_masks),
    "masks of gpt2 without a prefix": ("gpt2", lambda tensors: base(with_masks(tensors))),
    "rotary frequencies": ("llama", with_frequencies),
    "rotary frequencies of experts": ("qwen3_moe", with_frequencies),
    "a tied head, stored too": ("qwen2", with_head),
    "a tied head, stored alone": ("qwen2", with_head_alone),
    "a base model": ("gemma2", base),
    "a loss": ("phi", lambda tensors: tensors | {"loss.weight": torch.ones(7, 7)}),
    "a scale of type int8": (
        "mistral",
        lambda tensors: tensors | {"calibration.weight": torch.ones(9, dtype=torch.int8)},
    ),
}


@pytest.mark.parametrize("name", ASIDE)
def test_parameters_are_those_that_stock_counts(name: str, saved: Saved, tmp_path: Path) -> None:
    model_type, change = ASIDE[name]
    folder = copied(saved(model_type), tmp_path / "m", change)
    facts, layout = inspect(folder), layout_of(inspect(folder))
    assert facts.parameters == stock_count(folder) == stock_count(saved(model_type))
    assert layout.parameters(layout.sizes) == facts.parameters
    stored = load_file(folder / WEIGHTS)
    assert layout.bytes(layout.sizes) == sum(one.nbytes for one in stored.values())
    assert facts.bytes == layout.bytes(layout.sizes)


def test_a_tied_pair_of_which_nothing_is_there_is_refused(saved: Saved, tmp_path: Path) -> None:
    name = embedding(family_of("qwen2"))
    folder = copied(
        saved("qwen2"), tmp_path / "m", lambda t: {k: v for k, v in t.items() if k != name}
    )
    with pytest.raises(ModelInvalid, match=f"lacks {re.escape(name)}"):
        inspect(folder)


def test_a_missing_tensor_is_looked_for_where_the_index_says(saved: Saved) -> None:
    header = read_header(saved("llama") / WEIGHTS)
    name = "model.layers.1.mlp.up_proj.weight"
    promised = dict.fromkeys(header, "a.safetensors") | {name: "b.safetensors"}
    del header[name]
    files = dict.fromkeys(header, "a.safetensors")
    with pytest.raises(ModelInvalid, match=rf"b\.safetensors lacks {re.escape(name)}"):
        facts_of(read_config(saved("llama")), Stored(header, files, promised))


PREFIXES = {
    "peft": ("base_model.model.", "peft.*merge_and_unload"),
    "text and images": ("language_model.", "text and images.*save its text model alone"),
    "text and images, newer": ("model.language_model.", "text and images.*language_model"),
    "unknown": ("student.", "'student.', which stock transformers does not know.*rename"),
}


@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt"])
def test_a_prefix_that_stock_does_not_know_is_named(
    name: str, model_type: str, saved: Saved
) -> None:
    prefix, said = PREFIXES[name]
    header = read_header(saved(model_type) / WEIGHTS)
    with pytest.raises(ModelInvalid) as refused:
        facts_with(saved(model_type), {prefix + key: one for key, one in header.items()})
    assert re.search(said, message(refused.value))
    assert prefix in refused.value.message


FORMS: dict[str, tuple[str, str, str, str]] = {
    "gptq": ("llama", "self_attn.q_proj.weight", "self_attn.q_proj.qweight", "quantised"),
    "packed": ("qwen3", "mlp.up_proj.weight", "mlp.up_proj.weight_packed", "quantised"),
    "fused experts": (
        "qwen3_moe",
        "mlp.experts.0.gate_proj.weight",
        "mlp.experts.gate_up_proj",
        "experts lie in one tensor",
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_matrix_in_another_form_is_named(name: str, saved: Saved) -> None:
    model_type, lost, there, said = FORMS[name]
    header = read_header(saved(model_type) / WEIGHTS)
    header["model.layers.0." + there] = header.pop("model.layers.0." + lost)
    with pytest.raises(UnsupportedModel, match=said):
        facts_with(saved(model_type), header)


def test_mixtral_is_read_under_either_of_its_names(saved: Saved, tmp_path: Path) -> None:
    folder = copied(
        saved("mixtral"),
        tmp_path / "m",
        lambda t: {name.replace("block_sparse_moe", "mlp"): one for name, one in t.items()},
    )
    assert inspect(folder).parameters == stock_count(folder)


def test_a_huge_promise_costs_no_more_than_what_is_there(saved: Saved) -> None:
    config = read_config(saved("qwen3_moe")) | {"num_hidden_layers": 1_024}
    config |= {"num_local_experts": 1_024, "num_experts": 1_024}
    with pytest.raises(ModelInvalid):
        facts_of(config, merged({WEIGHTS: read_header(saved("qwen3_moe") / WEIGHTS)}))
