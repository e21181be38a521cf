"""Tensors beside the model: heads of reinforcement learning, of classification, of prediction; buffers; blocks after the last."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.model.streamed import StreamedModel
from pruning_core.structure.further import inspection_notes
from pruning_core.structure.layout import layout_of
from tests import tiny
from tests.pruning_core.unit_runs import ZERO, Result, fewer, finished, save, spec

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
Tensors = dict[str, torch.Tensor]
VALUE = {"v_head.summary.weight": (1, 32), "v_head.summary.bias": (1,)}
HEADS: dict[str, dict[str, tuple[int, ...]]] = {
    "value head": VALUE,
    "value head of two layers": {
        "v_head.0.weight": (16, 32),
        "v_head.0.bias": (16,),
        "v_head.2.weight": (1, 16),
    },
    "classification": {"score.weight": (7, 32)},
    "classification as wide as the model": {
        "classifier.dense.weight": (32, 32),
        "classifier.dense.bias": (32,),
        "classifier.out_proj.weight": (7, 32),
    },
    "prediction": {
        "medusa_head.0.0.linear.weight": (32, 32),
        "medusa_head.0.1.weight": (tiny.VOCAB, 32),
    },
    "two streams": {"eh_proj.weight": (32, 64), "enorm.weight": (32,)},
    "several streams": {"fusion.weight": (5, 96)},
    "own features": {"wide_head.up.weight": (96, 32), "wide_head.down.weight": (1, 96)},
    "transposed": {"probe.kernel": (32, 5)},
    "vectors": {"steering.direction": (32,), "logit_scale": (), "final_logits_bias": (1, tiny.VOCAB)},
    "many axes": {"adapters": (3, 2, 32, 5), "experts_of_no_block.bank": (4, 7, 32)},
    "none of its sizes": {"lookup.table": (11, 13), "lookup.empty": (0, 3)},
}  # fmt: skip
METHODS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "flap": ("llama", {"name": "flap"}, ("neurons", "kv_groups")),
    "goa": ("llama", {"name": "goa"}, ("neurons", "kv_groups")),
    "wanda_sp": ("gpt2", {"name": "wanda_sp", "units": ["neurons"]}, ("neurons",)),
    "layer_drop": ("llama", {"name": "layer_drop"}, ("layers",)),
    "layer_drop of opt": ("opt", {"name": "layer_drop"}, ("layers",)),
    "contextual": (
        "llama",
        {"name": "contextual", "parts": ["embedding"]},
        ("vocabulary",),
    ),
    "diet": ("llama", {"name": "diet"}, ("hidden",)),
    "diet of a tied gemma": ("gemma2", {"name": "diet"}, ("hidden",)),
    "random": ("mixtral", {"name": "random_units", "units": ["hidden"]}, ("hidden",)),
}


def made(shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def beside(folder: Path, tensors: Tensors) -> Path:
    """Add tensors to a model's file."""
    whole = load_file(folder / WEIGHTS) | tensors
    save_file(whole, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def pruned(
    method: str, tensors: Tensors, root: Path, *, given: torch.Tensor | None = None, **changes: Any
) -> tuple[Result, Tensors]:
    """Prune a model with further tensors; return the run and what its file holds."""
    model_type, params, kinds = METHODS[method]
    folder = beside(save(root / "m", model_type, **changes), tensors)
    amount = fewer(folder, kinds)  # type: ignore[arg-type]
    result = finished(folder, spec(params, **amount), root / "out", given)
    return result, load_file(result.checkpoint / WEIGHTS)


def stock_logits(result: Result) -> torch.Tensor:
    tokens = load_file(result.probe)["tokens"]
    with torch.no_grad():
        model: Any = AutoModelForCausalLM.from_pretrained(result.checkpoint).eval()
        logits: torch.Tensor = model(tokens).logits
    return logits


@pytest.mark.parametrize("method", METHODS)
def test_every_method_prunes_a_model_with_further_tensors(method: str, tmp_path: Path) -> None:
    tensors = made({name: shape for head in HEADS.values() for name, shape in head.items()})
    tensors["steps"] = torch.tensor(7)
    result, found = pruned(method, tensors, tmp_path)
    # as for models without: sums of other lengths, and norms of which the epsilon changes
    torch.testing.assert_close(stock_logits(result), result.logits, rtol=1e-4, atol=1e-4)
    told = " ".join(result.report.warnings)
    assert "v_head" in told
    assert torch.equal(found["lookup.table"], tensors["lookup.table"])
    assert found["steps"] == 7
    cut = METHODS[method][2]
    for name in VALUE:
        if "hidden" not in cut:
            assert torch.equal(found[name], tensors[name])
    assert ("classifier.dense.weight" in found) == ("hidden" not in cut)


def test_a_removal_of_residual_dimensions_cuts_the_axis_that_reads_them(tmp_path: Path) -> None:
    tensors = made({name: shape for head in HEADS.values() for name, shape in head.items()})
    result, found = pruned("diet", tensors, tmp_path)
    kept = result.config["hidden_size"]
    assert kept < 32
    shapes = {name: tuple(found[name].shape) for name in tensors if name in found}
    left_out = {*HEADS["classification as wide as the model"], *HEADS["prediction"]}
    left_out |= {"eh_proj.weight", "fusion.weight"}
    assert shapes == {
        name: tuple(kept if side == 32 else side for side in tensor.shape)
        for name, tensor in tensors.items()
        if name not in left_out
    }
    told = result.report.warnings
    assert any("are left out" in one and "medusa_head" in one for one in told)
    assert any("are cut alike" in one and "score" in one for one in told)
    assert any("stay as they are" in one and "lookup" in one for one in told)


@pytest.mark.parametrize(
    ("model_type", "tied"), [("llama", False), ("gemma2", True), ("gemma2", False)]
)
def test_a_value_head_answers_as_over_the_model_whose_dimensions_are_zero(
    model_type: str, tied: bool, tmp_path: Path
) -> None:
    """Read off the final norm, as the output head is: with the output head's weights it gives the output head's answers."""
    folder = save(tmp_path / "m", model_type, tie_word_embeddings=tied)
    stored = load_file(folder / WEIGHTS)
    head = stored.get("lm_head.weight", stored["model.embed_tokens.weight"])
    beside(folder, {"v_head.summary.weight": head[3:8].clone()})
    wanted = spec({"name": "diet"}, **fewer(folder, ("hidden",)))
    result = finished(folder, wanted, tmp_path / "out")
    found = load_file(result.checkpoint / WEIGHTS)
    model: Any = AutoModelForCausalLM.from_pretrained(result.checkpoint).eval()
    with torch.no_grad():
        tokens = load_file(result.probe)["tokens"]
        hidden = model.model(tokens).last_hidden_state
        expected = model.lm_head(hidden)[..., 3:8]
        torch.testing.assert_close(hidden @ found["v_head.summary.weight"].T, expected)


def test_a_removal_of_tokens_cuts_what_is_as_tall_as_the_vocabulary(tmp_path: Path) -> None:
    tensors = made(HEADS["prediction"] | HEADS["vectors"])
    result, found = pruned("contextual", tensors, tmp_path)
    stays = json.loads((result.checkpoint / "token_map.json").read_text())
    assert len(stays) == result.config["vocab_size"] < tiny.VOCAB
    prediction = "medusa_head.0.1.weight"
    assert torch.equal(found[prediction], tensors[prediction][stays])
    assert torch.equal(found["final_logits_bias"], tensors["final_logits_bias"][:, stays])
    square = "medusa_head.0.0.linear.weight"
    assert torch.equal(found[square], tensors[square])


@pytest.mark.parametrize("method", ["diet", "contextual", "flap"])
def test_an_axis_that_may_be_stream_or_vocabulary_is_not_guessed_at(
    method: str, tmp_path: Path
) -> None:
    width = 304
    tensors = made({"score.weight": (2, width), "bias.of_logits": (width,), "other.table": (3, 5)})
    sizes = {"vocab_size": width, "hidden_size": width, "head_dim": 8}
    result, found = pruned(method, tensors, tmp_path, **sizes)
    assert ({"score.weight", "bias.of_logits"} <= found.keys()) == (method == "flap")
    assert "other.table" in found
    torch.testing.assert_close(stock_logits(result), result.logits, rtol=1e-4, atol=1e-4)


def with_block_more(folder: Path, model_type: str) -> Tensors:
    """Add a block after the last one, as prediction heads are saved, and return it."""
    block = "h" if model_type == "gpt2" else "layers"
    whole = load_file(folder / WEIGHTS)
    last = {name: one for name, one in whole.items() if f".{block}.2." in name}
    more = {name.replace(f".{block}.2.", f".{block}.3."): 2 * one for name, one in last.items()}
    beside(folder, more)
    return more


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt2", "qwen3_moe", "opt"])
def test_a_block_after_the_last_is_no_part_of_the_model(model_type: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", model_type)
    alone = layout_of(inspect(folder))
    more = with_block_more(folder, model_type)
    facts = inspect(folder)
    layout = layout_of(facts)
    assert facts.blocks == tiny.BLOCKS
    assert layout.sizes == alone.sizes
    assert layout.further.keys() == more.keys()
    assert len(StreamedModel(folder, facts, CPU).blocks) == tiny.BLOCKS
    (first, *later) = inspection_notes(layout.further)
    assert ".3" in first
    assert any(one.startswith("When neurons go") and "left out" in one for one in later)


def test_a_block_after_the_last_moves_up_where_blocks_go(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", "llama")
    more = with_block_more(folder, "llama")
    wanted = spec({"name": "layer_drop"}, **fewer(folder, ("layers",)))
    result = finished(folder, wanted, tmp_path / "out")
    found = load_file(result.checkpoint / WEIGHTS)
    assert result.config["num_hidden_layers"] == 2
    for name, tensor in more.items():
        assert torch.equal(found[name.replace(".3.", ".2.")], tensor)
    assert not [name for name in found if ".layers.3." in name]
    torch.testing.assert_close(stock_logits(result), result.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [{"name": "flap"}, {"name": "diet"}])
def test_a_block_after_the_last_goes_where_it_would_fit_no_more(
    method: dict[str, Any], tmp_path: Path
) -> None:
    folder = save(tmp_path / "m", "llama")
    with_block_more(folder, "llama")
    kinds: Any = ("hidden",) if method["name"] == "diet" else ("neurons", "kv_groups")
    result = finished(folder, spec(method, **fewer(folder, kinds)), tmp_path / "out")
    found = load_file(result.checkpoint / WEIGHTS)
    assert not [name for name in found if ".layers.3." in name]
    assert any("layers.3" in one and "left out" in one for one in result.report.warnings)


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_a_mask_leaves_further_tensors_as_they_are(method: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "m", "llama")
    tensors = made(VALUE | HEADS["prediction"]) | with_block_more(folder, "llama")
    beside(folder, tensors)
    result = finished(folder, spec(method, sparsity=0.5), tmp_path / "out")
    found = load_file(result.checkpoint / WEIGHTS)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert any("stay as they are" in one for one in result.report.warnings)


@pytest.mark.parametrize("method", ["diet", "contextual", "flap"])
def test_zeroed_units_leave_further_tensors_as_they_are(method: str, tmp_path: Path) -> None:
    tensors = made(VALUE | HEADS["prediction"] | HEADS["vectors"])
    folder = beside(save(tmp_path / "m", "llama"), tensors)
    amount = {} if method == "contextual" else {"sparsity": 0.1}
    result = finished(folder, spec(METHODS[method][1], pattern=ZERO, **amount), tmp_path / "out")
    found = load_file(result.checkpoint / WEIGHTS)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    torch.testing.assert_close(stock_logits(result), result.logits, rtol=1e-4, atol=1e-4)


def test_another_type_of_the_result_rounds_further_tensors_too(tmp_path: Path) -> None:
    tensors = made(HEADS["vectors"]) | {"steps": torch.tensor(7)}
    folder = beside(save(tmp_path / "m", "llama"), tensors)
    wanted = spec("magnitude", sparsity=0.5, output={"dtype": "bfloat16"})
    found = load_file(finished(folder, wanted, tmp_path / "out").checkpoint / WEIGHTS)
    assert found["steps"] == 7
    assert torch.equal(found["logit_scale"], tensors["logit_scale"].bfloat16())


@pytest.fixture
def buffers() -> Callable[[str], Tensors]:
    """Return what old or trained checkpoints have within their blocks beside parameters."""

    def of(prefix: str) -> Tensors:
        return {
            f"{prefix}.rotary_emb.inv_freq": torch.ones(4),
            f"{prefix}.masked_bias": torch.tensor(-1e4),
            f"{prefix}.k_proj.k_scale": torch.tensor(1.5),
            f"{prefix}.q_proj.lora_A.weight": torch.ones(2, 32),
        }

    return of


def test_buffers_within_blocks_change_nothing(
    buffers: Callable[[str], Tensors], tmp_path: Path
) -> None:
    folder = save(tmp_path / "m", "llama")
    tensors = buffers("model.layers.1.self_attn")
    beside(folder, tensors)
    wanted = spec({"name": "flap"}, **fewer(folder, ("neurons", "kv_groups")))
    result = finished(folder, wanted, tmp_path / "out")
    found = load_file(result.checkpoint / WEIGHTS)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    torch.testing.assert_close(stock_logits(result), result.logits, rtol=1e-4, atol=1e-4)
