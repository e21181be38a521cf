"""Removing units: on tiny models of every family, what is left answers as the model whose units are zero."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from pruning_core.checkpoints.config import read_config
from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import PruningError, ResumeMismatch, SizeUnreachable, UnitsUnsupported
from pruning_core.families import family_of
from pruning_core.model.block_calls import run
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.phases import prune
from pruning_core.plans.low_activation import low_activation_masks
from pruning_core.prune.units import digest_of
from pruning_core.spec.patterns import Units
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.unit_method import UnitKind
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.layout import layout_of
from pruning_core.system import device as devices
from pruning_core.units.unit_groups import spread
from tests import tiny
from tests.pruning_core import reload_all
from tests.pruning_core.runs import MODEL_TYPES, Watcher, stored, weights
from tests.pruning_core.unit_runs import (
    BATCH,
    KINDS,
    METHODS,
    SHARED_HEADS,
    ZERO,
    Params,
    Result,
    Tensors,
    difference,
    fewer,
    finished,
    read,
    save,
    spec,
    stock,
    tokenizer,
    tokens,
)

DENSE = {"name": "refit", "target": "dense"}
CPU = torch.device("cpu")
EXACT = 5e-6
"""Float32 sums of other lengths, block after block; one unit amiss moves logits by a hundredth and more."""
SHARED_EPS = 5e-5
"""Norms of queries and keys read the same `rms_norm_eps`, which a cut of the residual stream changes."""
COARSE = 2e-2
"""Rescaled norms and embeddings are rounded to bfloat16 anew."""


# Models and runs


@pytest.fixture(autouse=True, scope="module")
def several_batches() -> Iterator[None]:
    """Let the calibration text come in batches, as a text of usual length does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "batch_tokens", lambda _device: BATCH)
        yield


# All families, in one fresh process


@dataclass(frozen=True)
class Case:
    """One result that is loaded again.

    Attributes:
        model_type: Of the tiny model.
        kinds: What goes.
        method: How it is chosen.
        changes: To the tiny model's configuration.
        others: Fields of the specification.
        dtype: That the model is stored in.
        tolerance: Largest difference of a logit, over the largest logit.
    """

    model_type: str
    kinds: tuple[UnitKind, ...]
    method: Params
    changes: Params = field(default_factory=dict)
    others: Params = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    tolerance: float = EXACT


def every_kind() -> Iterator[tuple[str, Case]]:
    for model_type in MODEL_TYPES:
        for kind in KINDS:
            if kind in family_of(model_type).fixed:
                continue
            shared = kind == "hidden" and model_type in ("gemma3_text", "qwen3", "qwen3_moe")
            tolerance = SHARED_EPS if shared else EXACT
            yield (
                f"{model_type}-{kind}",
                Case(model_type, (kind,), METHODS[kind], tolerance=tolerance),
            )


BOTH: tuple[UnitKind, ...] = ("kv_groups", "neurons")
TIED = {"tie_word_embeddings": True}
UNTIED = {"tie_word_embeddings": False}
BIASED = {"attention_bias": True, "mlp_bias": True}
WINDOWED = {
    "use_sliding_window": True,
    "sliding_window": 8,
    "max_window_layers": 1,
    "num_hidden_layers": 4,
}
MIDDLE_BLOCK: Params = {"name": "random_units", "units": ["layers"], "seed": 2}
HIDDEN, NEURONS, GROUPS, LAYERS, TOKENS = (METHODS[kind] for kind in KINDS)
CASES: dict[str, Case] = dict(every_kind()) | {
    "tied": Case("llama", ("hidden",), HIDDEN, TIED),
    "untied": Case("gemma2", ("hidden",), HIDDEN, UNTIED),
    "tied tokens": Case("llama", ("vocabulary",), TOKENS, TIED),
    "untied tokens": Case("qwen2", ("vocabulary",), TOKENS, UNTIED),
    "bfloat16 hidden": Case(
        "llama", ("hidden",), HIDDEN, dtype=torch.bfloat16, tolerance=COARSE
    ),
    "bfloat16 gemma": Case(
        "gemma2", ("hidden",), HIDDEN, dtype=torch.bfloat16, tolerance=COARSE
    ),
    "bfloat16 neurons": Case("llama", ("neurons",), NEURONS, dtype=torch.bfloat16),
    "biases hidden": Case("llama", ("hidden",), HIDDEN, BIASED),
    "biases groups": Case("llama", ("kv_groups",), GROUPS, BIASED),
    "biases neurons": Case("llama", ("neurons",), NEURONS, BIASED),
    "biases compensated": Case(
        "llama", ("kv_groups",), {"name": "flap", "units": ["kv_groups"], "compensation": "bias"}, BIASED
    ),
    "grouped queries": Case("qwen3", ("kv_groups",), {"name": "goa", "units": ["kv_groups"]}, SHARED_HEADS),
    "grouped queries of gpt-oss": Case("gpt_oss", ("kv_groups",), GROUPS, SHARED_HEADS),
    "one head each": Case("phi", ("kv_groups",), GROUPS, {"num_key_value_heads": 4}),
    "windowed blocks": Case("qwen2", ("layers",), {"name": "layer_drop", "rescore": True}, WINDOWED),
    "run of blocks": Case(
        "gemma3_text", ("layers",), {"name": "layer_drop", "contiguous": True}
    ),
    "middle block": Case("gpt_oss", ("layers",), MIDDLE_BLOCK),
    "middle block of gemma": Case("gemma2", ("layers",), MIDDLE_BLOCK),
    "random hidden": Case("mixtral", ("hidden",), {"name": "random_units", "units": ["hidden"]}),
    "random": Case("phi3", BOTH, {"name": "random_units"}),
    "goa reconstructed": Case("phi", BOTH, {"name": "goa", "reconstruct": True}),
    "goa reconstructed in bfloat16": Case(
        "qwen2", BOTH, {"name": "goa", "reconstruct": True}, dtype=torch.bfloat16
    ),
    "goa by similarity": Case(
        "gemma2", BOTH, {"name": "goa", "heads_by": "similarity"}, SHARED_HEADS
    ),
    "goa protected": Case(
        "phi3", BOTH, {"name": "goa", "heads_by": "similarity_protected"}
    ),
    "refitted": Case("opt", ("neurons",), {"name": "flap"}, others={"refinement": ["refit"]}),
    "refitted experts": Case(
        "gpt_oss", ("neurons",), NEURONS, others={"refinement": ["refit"]}
    ),
    "refitted to the dense model": Case(
        "gpt2", ("neurons",), {"name": "flap"}, others={"refinement": [DENSE]}
    ),
    "hidden refitted": Case("qwen2", ("hidden",), HIDDEN, others={"refinement": [DENSE]}),
    "voted units": Case("mistral", BOTH, {"name": "diet", "granularity": "units"}),
    "three kinds": Case(
        "llama",
        (*BOTH, "vocabulary"),
        {"name": "contextual", "parts": ["linear", "activation", "embedding"], "relative": 1.0},
    ),
    "plainly sliced": Case(
        "gemma3_text", ("hidden",), {"name": "diet", "rescale": False}, tolerance=1e-3
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Reloaded:
    """What the fresh process found: results by case, tensors by case and name, errors by case."""

    results: dict[str, Result]
    tensors: Tensors
    errors: dict[str, str]


@pytest.fixture(scope="module")
def models_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Dense folders, each made once."""
    root = tmp_path_factory.mktemp("dense")
    made: dict[str, Path] = {}

    def folder(model_type: str, **changes: Any) -> Path:
        key = repr((model_type, sorted(changes.items(), key=lambda item: item[0])))
        if key not in made:
            made[key] = save(root / str(len(made)), model_type, **changes)
        return made[key]

    return folder


@pytest.fixture(scope="module")
def reloaded(models_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Reloaded:
    root = tmp_path_factory.mktemp("results")
    results: dict[str, Result] = {}
    for name, case in CASES.items():
        source = models_of(case.model_type, dtype=case.dtype, **case.changes)
        cut = tuple(kind for kind in case.kinds if kind != "vocabulary")
        amount = {} if len(cut) < len(case.kinds) else fewer(source, cut)
        results[name] = finished(source, spec(case.method, **amount, **case.others), root / name)
    listed, target = root / "list.json", root / "answers.safetensors"
    listed.write_text(
        json.dumps([[name, str(one.checkpoint), str(one.probe)] for name, one in results.items()])
    )
    command = [sys.executable, reload_all.__file__, listed, target]
    subprocess.run(command, check=True, capture_output=True)
    with safe_open(target, framework="pt") as opened:
        errors = opened.metadata() or {}
    return Reloaded(results, load_file(target), errors)


@pytest.mark.parametrize("name", CASES)
def test_a_fresh_process_answers_as_the_zeroed_model_does(name: str, reloaded: Reloaded) -> None:
    assert name not in reloaded.errors, reloaded.errors[name]
    found = difference(reloaded.tensors[f"{name}/logits"], reloaded.results[name].logits)
    assert found <= CASES[name].tolerance


@pytest.mark.parametrize("name", CASES)
def test_a_cache_changes_nothing_of_what_is_generated(name: str, reloaded: Reloaded) -> None:
    cached, uncached = (reloaded.tensors[f"{name}/{way}"] for way in ("cached", "uncached"))
    assert cached.shape[1] == 12 + reload_all.NEW_TOKENS
    assert cached.tolist() == uncached.tolist()


@pytest.mark.parametrize("name", CASES)
def test_all_that_was_asked_for_goes_and_nothing_else(name: str, reloaded: Reloaded) -> None:
    result, case = reloaded.results[name], CASES[name]
    sizes = {one.kind: one for one in result.report.sizes}
    assert sizes.keys() == set(case.kinds)
    for kind, size in sizes.items():
        assert size.before == result.layout.sizes.of(kind) > size.after
        if kind != "vocabulary" and case.method["name"] != "contextual":
            assert size.after == Cutter(result.layout, Units()).legal(kind)[-1]
    facts = inspect(result.checkpoint)
    assert facts.parameters == result.report.parameters_after == result.report.parameters_nonzero
    assert facts.bytes == result.report.bytes_after
    layout = layout_of(facts)
    left = replace(result.layout.sizes, **{kind: one.after for kind, one in sizes.items()})
    assert layout.sizes == left
    assert result.layout.parameters(left) == facts.parameters
    assert {facts.dtype for facts in facts.tensors.values()} == {
        "BF16" if case.dtype == torch.bfloat16 else "F32"
    }


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if set(BOTH) & {*case.kinds}]
)
def test_every_block_loses_the_same_number_of_units(name: str, reloaded: Reloaded) -> None:
    result = reloaded.results[name]
    gone = {one.kind: one.before - one.after for one in result.report.sizes}
    experts = getattr(tiny.config(CASES[name].model_type), "num_local_experts", 0)
    for block in result.report.blocks:
        removed = [(one.kind, one.removed, one.of) for one in block.units]
        expected = [
            (kind, gone[kind], result.layout.sizes.of(kind))
            for kind in BOTH
            for _ in range(max(1, experts) if kind == "neurons" else 1)
            if kind in gone
        ]
        assert removed == expected
    neurons = {
        one.digest for block in result.report.blocks for one in block.units if one.kind == "neurons"
    }
    assert len(neurons) > 1 or "neurons" not in gone  # the choice is each block's own


@pytest.mark.parametrize("name", CASES)
def test_the_configuration_differs_where_it_must(name: str, reloaded: Reloaded) -> None:
    result, case = reloaded.results[name], CASES[name]
    before, layout = read_config(result.source), result.layout
    after = {one.kind: one.after for one in result.report.sizes}
    expected = {
        layout.family.width_keys[kind]: n
        for kind, n in after.items()
        if kind in layout.family.width_keys
    }
    if {"hidden", "kv_groups"} & after.keys():
        expected["head_dim"] = layout.head_dim
    if "kv_groups" in after:
        expected["num_key_value_heads"] = after["kv_groups"]
        expected["num_attention_heads"] = after["kv_groups"] * layout.query_heads_per_group
    if "hidden" in after and case.method.get("rescale", True):
        expected["rms_norm_eps"] = before["rms_norm_eps"] * 32 / after["hidden"]
    if "layers" in after:
        gone = result.report.removed_blocks
        stays = [index for index in range(layout.sizes.layers) if index not in gone]
        assert len(stays) == after["layers"]
        types = getattr(tiny.config(case.model_type, **case.changes), "layer_types", None)
        expected |= {"layer_types": [types[index] for index in stays]} if types else {}
        if "max_window_layers" in before:
            full = before["max_window_layers"]
            expected["max_window_layers"] = sum(index < full for index in stays)
    assert result.config == before | expected | {
        key: result.config[key]
        for key in result.config
        if "vocabulary" in after and key.endswith("_token_id")
    }


def test_a_middle_block_goes_where_its_neighbours_attend_otherwise(reloaded: Reloaded) -> None:
    """Else no case would tell whether lists with one value per block lose the right one."""
    for name in ("middle block", "middle block of gemma"):
        assert reloaded.results[name].report.removed_blocks == (1,)
        assert reloaded.results[name].config["layer_types"] == ["sliding_attention"] * 2


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if "vocabulary" in case.kinds]
)
def test_fewer_tokens_read_the_calibration_text_as_before(name: str, reloaded: Reloaded) -> None:
    result = reloaded.results[name]
    old, new = (AutoTokenizer.from_pretrained(one) for one in (result.source, result.checkpoint))
    stays = read(result.checkpoint / "token_map.json")
    assert len(new) == len(stays) == result.config["vocab_size"] < len(old) < tiny.VOCAB
    seen = set(tokens().flatten().tolist())
    assert seen <= {*stays, *range(len(old), tiny.VOCAB)}
    for one in ("bos", "eos", "pad"):
        named = result.config.get(f"{one}_token_id")
        assert named is None or new.convert_ids_to_tokens(named) == getattr(old, f"{one}_token")
    text = "The roses, before: ñandú!"
    assert new.decode(new(text)["input_ids"]) == text
    embedding = result.layout.family
    name = next(key for key, kinds in embedding.outside.items() if kinds[0] == "vocabulary")
    stored_name = next(
        key for key in weights(result.source) if result.layout.module_name(key) == name
    )
    before, after = weights(result.source)[stored_name], weights(result.checkpoint)[stored_name]
    assert torch.equal(after, before[stays])


# Zeros in place of a cut

ZEROED = [
    (model_type, kind)
    for model_type in ("gemma2", "gpt2", "gpt_oss", "llama", "phi")
    for kind in KINDS
    if kind not in family_of(model_type).fixed
]
NEVER_CUT = [
    (model_type, kind) for model_type in MODEL_TYPES for kind in family_of(model_type).fixed
]


def axes_of(result: Result, kind: UnitKind) -> Iterator[tuple[str, int]]:
    """Yield the tensors of two axes that have units of a kind, and along which axis."""
    for name, one in result.layout.tensors.items():
        for axis, spans in enumerate(one.axes):
            if len(one.axes) > 1 and any(span.kind == kind for span in spans):
                yield name, axis


@pytest.mark.parametrize(("model_type", "kind"), ZEROED)
def test_zeros_give_what_a_cut_gives_and_keep_every_shape(
    model_type: str, kind: UnitKind, reloaded: Reloaded, tmp_path: Path
) -> None:
    cut = reloaded.results[f"{model_type}-{kind}"]
    amount = {} if kind == "vocabulary" else {"sparsity": cut.report.sparsity}
    wanted = spec(METHODS[kind], pattern=ZERO, **amount)
    zeroed = finished(cut.source, wanted, tmp_path)
    assert zeroed.report.sizes == cut.report.sizes
    before, after = weights(cut.source), weights(zeroed.checkpoint)
    assert {name: one.shape for name, one in before.items()} == {
        name: one.shape for name, one in after.items()
    }
    assert zeroed.config == read_config(cut.source)
    assert zeroed.report.parameters_after == zeroed.report.parameters
    assert zeroed.report.parameters_nonzero < zeroed.report.parameters
    expected, found = cut.logits, zeroed.logits
    probe = load_file(zeroed.probe)["tokens"]
    with torch.no_grad():
        reloaded_logits = stock(zeroed.checkpoint)(probe).logits
    assert difference(reloaded_logits, found) <= EXACT
    if kind == "vocabulary":
        found = found[..., read(cut.checkpoint / "token_map.json")]
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("model_type", "kind"), NEVER_CUT)
def test_what_no_smaller_model_can_have_is_refused_and_can_be_zeroed(
    model_type: str, kind: UnitKind, models_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = models_of(model_type, dtype=torch.float32)
    with pytest.raises(UnitsUnsupported, match="cannot remove anything from a"):
        finished(source, spec(METHODS[kind], sparsity=0.1), tmp_path / "cut")
    method = {"name": "random_units", "units": [kind]}
    wanted = spec(method, sparsity=0.1, pattern=ZERO)
    result = finished(source, wanted, tmp_path / "zeroed")
    (size,) = result.report.sizes
    (units,) = {
        (one.kind, one.removed) for block in result.report.blocks for one in block.units
    } or {(kind, size.before - size.after)}
    assert units == (kind, size.before - size.after)
    with torch.no_grad():
        found = stock(result.checkpoint)(load_file(result.probe)["tokens"]).logits
    assert difference(found, result.logits) <= EXACT
    after = weights(result.checkpoint)
    for name, axis in axes_of(result, kind):
        flat = after[name].movedim(axis, 0).flatten(1)
        if kind == "hidden":
            assert (flat == 0).all(dim=1).sum() == size.before - size.after, name
        else:
            assert (flat == 0).all(dim=1).sum() >= (size.before - size.after) * 8, name


def test_each_block_s_own_dimensions_go_unread(
    models_of: Callable[..., Path], tmp_path: Path
) -> None:
    """DIET per layer: what reads a block's input loses the dimensions that are small there, and nothing else changes."""
    source = models_of("llama", dtype=torch.float32)
    method = {"name": "diet", "granularity": "per_layer", "bos": "keep"}
    result = finished(source, spec(method, pattern=ZERO, sparsity=0.2), tmp_path)
    (size,) = result.report.sizes
    before, after = weights(source), weights(result.checkpoint)
    with torch.no_grad():
        states = stock(source)(tokens(), output_hidden_states=True).hidden_states
    for index in range(tiny.BLOCKS):
        small = np.argsort(states[index].abs().mean(dim=(0, 1)).numpy(), kind="stable")
        dropped = torch.from_numpy(small[: size.before - size.after].copy())
        for part in ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up"):
            name = f"model.layers.{index}.{part}_proj.weight"
            before[name][:, dropped] = 0
    assert all(torch.equal(after[name], before[name]) for name in before)


# The authors' rules for single rows and columns


Seen = list[tuple[torch.Tensor, torch.Tensor]]
"""Inputs and outputs of a module, [tokens, width] each, call by call."""


def watch(module: Any) -> Seen:
    seen: Seen = []

    def note(_module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((args[0].flatten(0, -2), output.flatten(0, -2)))

    module.register_forward_hook(note)
    return seen


def mean_sizes(values: torch.Tensor) -> list[float]:
    """Return the mean of |v| of every column, by a plain loop."""
    columns = values.double().T.tolist()
    return [sum(abs(value) for value in column) / len(column) for column in columns]


@pytest.mark.parametrize("model_type", ["opt", "gpt2", "phi3", "gpt_oss"])
@pytest.mark.parametrize("bounds", [{"absolute": 0.4}, {"relative": 0.6}], ids=str)
def test_quiet_rows_and_columns_are_those_of_a_plain_loop(
    model_type: str, bounds: dict[str, float], models_of: Callable[..., Path]
) -> None:
    source = models_of(model_type, dtype=torch.float32)
    model = StreamedModel(source, inspect(source), CPU)

    def below(means: list[float], limits: list[float]) -> list[int]:
        limit = bounds.get("absolute", bounds.get("relative", 0.0) * sum(limits) / len(limits))
        return [place for place, mean in enumerate(means) if mean <= limit]

    with model.block(0) as block, torch.no_grad():
        states = Activations(model, tokens(), batch_tokens=48)
        groups = input_groups(block, model.family, model.config)
        ask = {"absolute": None, "relative": None} | bounds
        found = low_activation_masks(0, block, groups, states, **ask)
        matrices = [matrix for group in groups for matrix in group.matrices]
        assert [*found] == [matrix.name for matrix in matrices]
        seen = {module: watch(module) for module in {matrix.module for matrix in matrices}}
        for hidden, call in states.inputs(0):
            run(block, hidden, call)
        for matrix in matrices:
            x, y = (torch.cat(parts) for parts in zip(*seen[matrix.module], strict=True))
            y = y[:, matrix.start : matrix.stop]
            bias = torch.zeros(matrix.shape[0]) if matrix.bias is None else matrix.bias
            columns, whole, centred = map(mean_sizes, (x, y, y - bias))
            rows = [min(pair) for pair in zip(whole, centred, strict=True)]
            masks = found[matrix.name]
            assert masks.rows.tolist() == below(rows, rows)
            assert masks.columns.tolist() == below(columns, columns)
            assert masks.biases.tolist() == below(whole, rows)
    assert any(len(one.rows) for one in found.values())
    assert any(len(one.columns) for one in found.values())


def test_an_expert_that_no_token_reaches_is_not_quiet(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "mixtral", num_local_experts=8, num_experts_per_tok=1)
    model = StreamedModel(source, inspect(source), CPU)
    with model.block(0) as block, torch.no_grad():
        states = Activations(model, tokens()[:1, :2])  # two tokens reach two experts at most
        groups = input_groups(block, model.family, model.config)
        found = low_activation_masks(0, block, groups, states, absolute=1e9, relative=None)
    empty = [name for name, masks in found.items() if not len(masks.rows)]
    assert len(empty) >= 6 * 3
    assert all(".experts." in name for name in empty)
    assert all(not len(found[name].columns) for name in empty)


def test_thresholds_zero_rows_columns_and_neurons(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "llama", **BIASED)
    result = finished(
        source,
        spec({"name": "contextual", "relative": 0.7}, pattern=ZERO),
        tmp_path / "out",
    )
    model = stock(source)
    named = {name: one for name, one in model.named_modules() if name.endswith("_proj")}
    seen = {name: watch(module) for name, module in named.items()}
    with torch.no_grad():
        model(tokens())
    expected = weights(source)
    sizes: dict[str, torch.Tensor] = {}
    for name, ((x, y),) in seen.items():
        weight, bias = expected[f"{name}.weight"], expected[f"{name}.bias"]
        columns, whole, centred = (part.abs().mean(dim=0) for part in (x, y, y - bias))
        rows = torch.minimum(whole, centred)
        weight[rows <= 0.7 * rows.mean()] = 0
        weight[:, columns <= 0.7 * columns.mean()] = 0
        bias[whole <= 0.7 * rows.mean()] = 0
        sizes[name] = columns
    for index in range(tiny.BLOCKS):
        h = sizes[f"model.layers.{index}.mlp.down_proj"]
        gone = h <= 0.7 * h.mean()
        assert gone.any()
        for part in ("gate", "up"):
            expected[f"model.layers.{index}.mlp.{part}_proj.weight"][gone] = 0
            expected[f"model.layers.{index}.mlp.{part}_proj.bias"][gone] = 0
    after = weights(result.checkpoint)
    assert all(torch.equal(after[name], expected[name]) for name in expected)


# What is refused


def test_one_key_value_head_stays_and_neurons_go_alone_with_a_warning(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "llama", num_key_value_heads=1)
    with pytest.raises(UnitsUnsupported, match="key-value groups per block"):
        finished(source, spec(GROUPS, sparsity=0.1), tmp_path / "groups")
    result = finished(source, spec("wanda_sp", **fewer(source, ("neurons",))), tmp_path / "both")
    assert [one.kind for one in result.report.sizes] == ["neurons"]
    assert any("All key-value groups per block stay" in one for one in result.report.warnings)


GOA_GROUPS: Params = {"name": "goa", "units": ["kv_groups"]}
DENSE_REFIT = [{"name": "refit", "target": "dense"}]


@pytest.mark.parametrize(
    ("method", "kind", "refinement", "samples", "inputs"),
    [
        ("wanda_sp", "neurons", [], 1, None),
        ("wanda_sp", "neurons", ["refit"], 29, 48),
        ("wanda_sp", "neurons", ["refit"], 30, None),
        (METHODS["kv_groups"], "kv_groups", ["refit"], 19, 32),
        (METHODS["kv_groups"], "kv_groups", ["refit"], 20, None),
        ("diet", "hidden", DENSE_REFIT, 29, 48),
        (GOA_GROUPS | {"reconstruct": True}, "kv_groups", [], 29, 48),
        (GOA_GROUPS, "kv_groups", [], 19, None),
    ],
)
def test_a_fit_on_few_tokens_is_a_warning(
    method: Params | str,
    kind: UnitKind,
    refinement: list[Any],
    samples: int,
    inputs: int | None,
    tmp_path: Path,
) -> None:
    source = save(tmp_path / "m", "llama")  # 32 inputs of o, 48 of down
    wanted = spec(method, refinement=refinement, **fewer(source, (kind,)))
    result = finished(source, wanted, tmp_path / "out", tiny.tokens(samples, 16))
    found = [one for one in result.report.warnings if "are fitted on" in one]
    expected = (
        f"Matrices of {inputs} inputs are fitted on no more than {16 * samples} calibration tokens. With fewer than 10"
        " tokens per input a fit follows the noise of the text, or is pulled back from it and gains less: raise `samples`"
        " or `seq_len`."
    )
    assert found == ([] if inputs is None else [expected])


@pytest.mark.parametrize("sparsity", [1e-4, 0.949])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "vocabulary"])
def test_a_share_that_takes_nothing_or_everything_is_refused(
    kind: UnitKind, sparsity: float, models_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = models_of("llama", dtype=torch.float32)
    expected = "the smallest step removes" if sparsity < 0.5 else r"at most [\d.]+% can go"
    with pytest.raises(SizeUnreachable, match=expected):
        finished(source, spec(METHODS[kind], sparsity=sparsity), tmp_path)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "contextual", "absolute": 1e-9},
        {"name": "goa", "heads_by": "similarity", "units": ["kv_groups"], "threshold": 1e-9},
    ],
    ids=lambda method: method["name"],
)
def test_a_threshold_that_takes_nothing_is_refused(
    method: Params, models_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = models_of("llama", dtype=torch.float32)
    with pytest.raises(SizeUnreachable, match="The threshold takes no"):
        finished(source, spec(method), tmp_path)


def test_protected_heads_go_no_further_than_half(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "qwen3", **SHARED_HEADS)
    method = {"name": "goa", "units": ["kv_groups"], "heads_by": "similarity_protected"}
    layout = layout_of(inspect(source))
    for groups in (2, 1):
        size = layout.parameters(replace(layout.sizes, kv_groups=groups))
        wanted = spec(method, budget={"parameters": size})
        if groups == 2:
            assert finished(source, wanted, tmp_path / "half").report.sizes[0].after == 2
        else:
            with pytest.raises(PruningError, match="at most 2 of 4 key-value groups"):
                finished(source, wanted, tmp_path / "more")


# Killed and resumed

RESUMED: dict[str, tuple[str, Params, Params]] = {
    "goa": ("llama", {"name": "goa", "reconstruct": True}, {"sparsity": 0.2}),
    "goa by similarity": ("llama", {"name": "goa", "heads_by": "similarity"}, {"sparsity": 0.2}),
    "flap": ("phi", {"name": "flap"}, {"sparsity": 0.2, "refinement": [DENSE]}),
    "flap with biases": ("phi", {"name": "flap", "compensation": "bias"}, {"sparsity": 0.2}),
    "diet": ("gemma2", {"name": "diet"}, {"sparsity": 0.25}),
    "diet to the dense model": ("llama", {"name": "diet"}, {"sparsity": 0.25, "refinement": [DENSE]}),
    "diet plainly sliced": (
        "llama", {"name": "diet", "rescale": False}, {"sparsity": 0.25, "refinement": [DENSE]}
    ),
    "layer_drop": ("gemma3_text", {"name": "layer_drop"}, {"sparsity": 0.18}),
    "layers to zero": ("gpt2", {"name": "layer_drop"}, {"sparsity": 0.25, "pattern": ZERO}),
    "contextual": (
        "qwen2", {"name": "contextual", "parts": ["embedding", "activation"], "relative": 1.0}, {}
    ),
    "experts": ("gpt_oss", {"name": "wanda_sp"}, {"sparsity": 0.2, "refinement": ["refit"]}),
    "thresholds": ("opt", {"name": "contextual", "relative": 0.6}, {"pattern": ZERO}),
}  # fmt: skip


@pytest.mark.parametrize("name", RESUMED)
def test_killed_and_resumed_equals_uninterrupted_bitwise(
    name: str, models_of: Callable[..., Path], tmp_path: Path
) -> None:
    model_type, method, others = RESUMED[name]
    source, wanted = models_of(model_type, dtype=torch.float32), spec(method, **others)
    whole = finished(source, wanted, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        prune(source, wanted, tmp_path / "cut", tokens=tokens(), observer=Watcher(stop_after=0))
    resumed = finished(source, wanted, tmp_path / "cut")
    assert resumed.report.resumed_blocks == 1
    before, after = weights(whole.checkpoint), weights(resumed.checkpoint)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(whole.logits, resumed.logits)
    assert whole.config == resumed.config
    assert whole.report.sizes == resumed.report.sizes
    assert whole.report.warnings == resumed.report.warnings
    strip = {"seconds", "sha256", "file"}
    assert [one.model_dump(exclude=strip) for one in whole.report.blocks] == [
        one.model_dump(exclude=strip) for one in resumed.report.blocks
    ]


def test_blocks_without_what_was_decided_before_them_are_refused(
    models_of: Callable[..., Path], tmp_path: Path
) -> None:
    source, wanted = models_of("llama", dtype=torch.float32), spec("flap", sparsity=0.2)
    with pytest.raises(KeyboardInterrupt):
        prune(source, wanted, tmp_path, tokens=tokens(), observer=Watcher(stop_after=0))
    (tmp_path / "work" / "units.safetensors").unlink()
    with pytest.raises(ResumeMismatch, match="not what was decided before them"):
        finished(source, wanted, tmp_path)


# What is chosen


def gone(source: Path, wanted: PruneSpec, out: Path) -> list[dict[str, torch.Tensor]]:
    """Return the units that go, by group, of every block."""
    stored(source, wanted, out, tokens())
    found = []
    for path in sorted((out / "work").glob("block-*.safetensors")):
        tensors = load_file(path)
        prefix = "dropped_units."
        found.append(
            {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
        )
    return found


def shuffled(source: Path, target: Path, kind: UnitKind) -> list[torch.Tensor]:
    """Write the same model with its units in another order; return each block's order."""
    shutil.copytree(source, target)
    layout = layout_of(inspect(source))
    size = layout.sizes.of(kind)
    generator = torch.Generator().manual_seed(7)
    orders = [torch.randperm(size, generator=generator) for _ in range(tiny.BLOCKS)]
    tensors = load_file(source / "model.safetensors")
    for name, one in layout.tensors.items():
        for axis, spans in enumerate(one.axes):
            if one.block is None or [span.kind for span in spans] != [kind]:
                continue
            entries = spread(orders[one.block], spans[0].each)
            tensors[name] = tensors[name].index_select(axis, entries).contiguous()
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return orders


CHOOSERS: list[Params] = [
    {"name": "wanda_sp"},
    {"name": "flap"},
    {"name": "goa"},
    {"name": "goa", "gated_form": "channel"},
    {"name": "goa", "covariance": "identity"},
    {"name": "goa", "reconstruct": True},
    {"name": "goa", "heads_by": "similarity_protected"},
    {"name": "contextual"},
    {"name": "diet", "granularity": "units"},
]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("method", CHOOSERS, ids=lambda method: "-".join(map(str, method.values())))
def test_units_in_another_order_are_chosen_alike(
    method: Params, kind: UnitKind, models_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = models_of("qwen3", dtype=torch.float32, **SHARED_HEADS)
    layout = layout_of(inspect(source))
    size = layout.parameters(replace(layout.sizes, kv_groups=2, neurons=32))
    wanted = spec(method, budget={"parameters": size})
    orders = shuffled(source, tmp_path / "shuffled", kind)
    before = gone(source, wanted, tmp_path / "before")
    after = gone(tmp_path / "shuffled", wanted, tmp_path / "after")
    for order, plain, other in zip(orders, before, after, strict=True):
        assert plain.keys() == other.keys()
        for name in plain:
            found = order[other[name].long()].sort().values if name == kind else other[name]
            assert found.tolist() == plain[name].tolist()
    assert any(kind in one for one in before)


EVERY: list[tuple[Params, Params]] = [
    ({"name": "wanda_sp"}, {}),
    ({"name": "wanda_sp"}, {"refinement": ["refit"]}),
    ({"name": "flap"}, {}),
    ({"name": "flap"}, {"refinement": [DENSE]}),
    ({"name": "goa"}, {}),
    ({"name": "goa", "gated_form": "channel", "heads_by": "similarity"}, {}),
    ({"name": "goa", "heads_by": "similarity_protected"}, {}),
    ({"name": "goa", "reconstruct": True}, {}),
    ({"name": "goa", "reconstruct": True, "ridge": 0}, {}),
    ({"name": "diet"}, {}),
    ({"name": "diet", "layer_reduce": "mean", "statistic": "rms"}, {"refinement": [DENSE]}),
    ({"name": "diet", "granularity": "units"}, {}),
    ({"name": "contextual"}, {}),
    ({"name": "layer_drop"}, {}),
    ({"name": "layer_drop", "contiguous": True}, {}),
    ({"name": "layer_drop", "rescore": True}, {}),
]


@pytest.mark.parametrize("embedded", ["zero", "constant"])
@pytest.mark.parametrize(
    ("method", "others"), EVERY, ids=[f"{method} {others}" for method, others in EVERY]
)
def test_dull_calibration_gives_finite_weights_and_one_answer(
    method: Params, others: Params, embedded: str, models_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = Path(shutil.copytree(models_of("llama", dtype=torch.float32), tmp_path / "dense"))
    tensors = load_file(source / "model.safetensors")
    tensors["model.embed_tokens.weight"][7] *= embedded != "zero"
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    text = torch.full((3, 12), 7)
    wanted = spec(method, sparsity=0.25, **others)
    results = [finished(source, wanted, tmp_path / name, text) for name in ("one", "two")]
    first, second = (weights(one.checkpoint) for one in results)
    assert all(torch.isfinite(tensor).all() for tensor in first.values())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.isfinite(results[0].logits).all()
    if embedded == "zero" and method["name"] in ("contextual", "layer_drop"):
        units = [one.digest for block in results[0].report.blocks for one in block.units]
        whole = results[0].layout.sizes
        lowest = [
            digest_of(torch.arange(whole.of(one.kind) - one.after))
            for one in results[0].report.sizes
            if one.kind != "layers"
        ]
        assert set(units) == set(lowest)
        assert results[0].report.removed_blocks == (() if lowest else (0,))


# Files


def test_shards_are_read_and_written(tmp_path: Path) -> None:
    source = tmp_path / "dense"
    model = tiny.build("llama", hidden_size=128, intermediate_size=512, num_hidden_layers=2)
    model.save_pretrained(source, max_shard_size="300KB")
    tokenizer().save_pretrained(source)
    assert len(list(source.glob("*.safetensors"))) > 5
    output = {"shard_bytes": 1_000_000}
    result = finished(source, spec("wanda_sp", sparsity=0.2, output=output), tmp_path / "out")
    shards = sorted(path.name for path in result.checkpoint.glob("*.safetensors"))
    index = read(result.checkpoint / "model.safetensors.index.json")
    assert len(shards) > 1
    assert set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == result.report.bytes_after
    with torch.no_grad():
        found = stock(result.checkpoint)(load_file(result.probe)["tokens"]).logits
    assert difference(found, result.logits) <= EXACT


def test_the_error_of_a_compensated_read_out_counts_its_bias(
    models_of: Callable[..., Path], tmp_path: Path
) -> None:
    source, name = models_of("opt", dtype=torch.float32), "model.decoder.layers.0.fc2"
    method = {"name": "flap", "compensation": "bias"}
    result = finished(source, spec(method, sparsity=0.1), tmp_path)
    model = stock(source)
    seen = watch(model.get_submodule(name))
    with torch.no_grad():
        model(tokens())
    ((x, y),) = seen
    before, after = (weights(one)[f"{name}.weight"].T for one in (source, result.checkpoint))
    stays = [i for i, row in enumerate(before) if any(torch.equal(row, one) for one in after)]
    found = x[:, stays] @ after + weights(result.checkpoint)[f"{name}.bias"]
    (units,) = result.report.blocks[0].units
    # float32 sums of squares that nearly cancel
    assert units.error == pytest.approx(float((found - y).norm() / y.norm()), rel=1e-3)
