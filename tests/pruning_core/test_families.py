"""What every family in the registry must do, on tiny random models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import UnsupportedModel
from pruning_core.families import family_of
from pruning_core.model.block_calls import run
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, Matrix, input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.phases import prune
from pruning_core.spec.progress import Progress
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report
from tests import tiny
from tests.pruning_core.runs import MODEL_TYPES, n_of_m, save_with_biases, valid, weights

CPU = torch.device("cpu")
Pick = Callable[[torch.Tensor], torch.Tensor]


def spec(**changes: Any) -> PruneSpec:
    fields = {"method": "wanda", "sparsity": 0.5, "evaluation": {"tasks": []}}
    return PruneSpec.model_validate(fields | changes)


class StopAfter:
    """An observer that ends the run as a kill would, once `block` has been stored."""

    def __init__(self, block: int) -> None:
        self._block = block

    def progress(self, progress: Progress) -> None:
        if progress.block is not None and progress.block.block == self._block:
            raise KeyboardInterrupt

    def alive(self) -> None:
        """Nothing to note."""


def test_an_architecture_without_a_table_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(UnsupportedModel, match=r"'bert'.*gpt_oss, llama.*qwen3_moe"):
        family_of("bert")


@pytest.mark.parametrize("changes", [{"mlp_only_layers": [1]}, {"decoder_sparse_step": 2}])
def test_a_model_of_dense_and_sparse_blocks_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "m", "qwen3_moe", **changes)
    with pytest.raises(UnsupportedModel, match=rf"{next(iter(changes))} is .*blocks are all alike"):
        inspect(folder)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_streamed_equals_full_forward(model_type: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "m", model_type)
    ids = tiny.tokens(3, 40)  # longer than the sliding windows
    full = AutoModelForCausalLM.from_pretrained(folder).eval()
    model = StreamedModel(folder, inspect(folder), CPU)
    with torch.no_grad():
        expected = full(ids).logits
        states = Activations(model, ids)
        for index in range(len(model.blocks)):
            with model.block(index) as block:
                states.advance(index, block)
        logits = torch.cat(
            [
                model.logits(batch.tokens, hidden, torch.arange(ids.shape[1]))
                for batch, hidden in zip(states.batches, states.hidden, strict=True)
            ]
        )
    # float32 sums in another order (experts are added one by one)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["head only", "both, different"])
def test_a_tied_head_is_read_as_stock_reads_it(layout: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "m", "llama", tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    if layout == "head only":
        del tensors["model.embed_tokens.weight"]
    else:
        tensors["lm_head.weight"] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids = tiny.tokens(1, 16)
    model = StreamedModel(folder, inspect(folder), CPU)
    states = Activations(model, ids)
    with torch.no_grad():
        for index in range(len(model.blocks)):
            with model.block(index) as block:
                states.advance(index, block)
        logits = model.logits(ids, states.hidden[0], torch.arange(16))
        expected = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_table_groups_what_really_shares_an_input(model_type: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "m", model_type)
    model = StreamedModel(folder, inspect(folder), CPU)
    states = Activations(model, tiny.tokens(1, 24))
    with model.block(0) as block, torch.no_grad():
        groups = input_groups(block, model.family, model.config)
        seen: dict[nn.Module, torch.Tensor] = {}
        for module in {matrix.module for group in groups for matrix in group.matrices}:
            module.register_forward_pre_hook(lambda m, args: seen.update({m: args[0]}))
        ((hidden, call),) = states.inputs(0)
        run(block, hidden, call)
        for group in groups:
            inputs = [seen[m.module] for m in group.matrices if m.module in seen]
            assert inputs or not group.always_runs
            assert all(torch.equal(one, inputs[0]) for one in inputs)
        for module, matrices in by_module(groups).items():
            # the parts of a fused module follow each other and cover all of its rows
            ends = [0, *(matrix.stop for matrix in matrices)]
            assert [matrix.start for matrix in matrices] == ends[:-1]
            weight: Any = module.weight
            assert ends[-1] * matrices[0].shape[1] == weight.numel()
        for name, matrices in by_parameter(model, groups).items():
            sizes = [rows * columns for rows, columns in (one.shape for one in matrices)]
            assert sum(sizes) == block.get_parameter(name).numel()


def by_module(groups: list[InputGroup]) -> dict[nn.Module, list[Matrix]]:
    found: dict[nn.Module, list[Matrix]] = {}
    for group in groups:
        for matrix in group.matrices:
            found.setdefault(matrix.module, []).append(matrix)
    return found


def by_parameter(model: StreamedModel, groups: list[InputGroup]) -> dict[str, list[Matrix]]:
    found: dict[str, list[Matrix]] = {}
    for group in groups:
        for matrix in group.matrices:
            found.setdefault(model.family.location(matrix.name).weight, []).append(matrix)
    return found


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


PLACES: list[tuple[str, str, str, Pick, str | None, Pick]] = [
    ("llama", "mlp.up_proj", "mlp.up_proj.weight", whole, None, whole),
    ("opt", "fc1", "fc1.weight", whole, "fc1.bias", whole),
    (
        "gpt2",
        "attn.c_attn[k]",
        "attn.c_attn.weight",
        lambda weight: weight[:, 32:64].T,
        "attn.c_attn.bias",
        lambda bias: bias[32:64],
    ),
    ("phi3", "mlp.gate_up_proj[up]", "mlp.gate_up_proj.weight", lambda w: w[48:], None, whole),
    ("qwen3_moe", "mlp.experts.1.up_proj", "mlp.experts.1.up_proj.weight", whole, None, whole),
    (
        "gpt_oss",
        "mlp.experts.2.gate",
        "mlp.experts.gate_up_proj",
        lambda weight: weight[2, :, 0::2].T,
        "mlp.experts.gate_up_proj_bias",
        lambda bias: bias[2, 0::2],
    ),
    (
        "gpt_oss",
        "mlp.experts.0.up",
        "mlp.experts.gate_up_proj",
        lambda weight: weight[0, :, 1::2].T,
        "mlp.experts.gate_up_proj_bias",
        lambda bias: bias[0, 1::2],
    ),
    (
        "gpt_oss",
        "mlp.experts.3.down",
        "mlp.experts.down_proj",
        lambda weight: weight[3].T,
        "mlp.experts.down_proj_bias",
        lambda bias: bias[3],
    ),
]


@pytest.mark.parametrize(("model_type", "name", "weight", "rows", "bias", "entries"), PLACES)
def test_a_matrix_and_its_bias_are_views_of_what_is_stored(
    model_type: str,
    name: str,
    weight: str,
    rows: Pick,
    bias: str | None,
    entries: Pick,
    tmp_path: Path,
) -> None:
    folder = tiny.save(tmp_path / "m", model_type)
    model = StreamedModel(folder, inspect(folder), CPU)
    source = {name: tensor.clone() for name, tensor in model.dense(1).items()}
    with model.block(1) as block, torch.no_grad():
        groups = input_groups(block, model.family, model.config)
        (matrix,) = (m for group in groups for m in group.matrices if m.name == name)
        assert torch.equal(matrix.view, rows(source[weight]))
        rows(source[weight]).fill_(2)
        matrix.write(torch.full(matrix.shape, 2.0), stored=torch.float32)
        if bias is None:
            assert matrix.bias is None
        else:
            assert matrix.bias is not None
            assert torch.equal(matrix.bias, entries(source[bias]))
            entries(source[bias]).fill_(3)
            matrix.bias.fill_(3)
        stored = block.state_dict()
        assert stored.keys() == source.keys()
        assert all(torch.equal(stored[name], source[name]) for name in source)


@dataclass(frozen=True)
class Pruned:
    """One family's dense folder and an uninterrupted run over it."""

    dense: Path
    out: Path
    report: Report


@pytest.fixture(scope="module", params=MODEL_TYPES)
def pruned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pruned:
    root = tmp_path_factory.mktemp(request.param)
    dense = tiny.save(root / "dense", request.param)
    report = prune(dense, spec(), root / "out", tokens=tiny.tokens())
    return Pruned(dense, root / "out", report)


def read_matrices(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    model = StreamedModel(folder, inspect(folder), CPU)
    for index in range(len(model.blocks)):
        with model.block(index) as block:
            for group in input_groups(block, model.family, model.config):
                for matrix in group.matrices:
                    yield f"{index} {matrix.name}", matrix.read()


def test_every_matrix_of_a_block_reaches_the_ratio_exactly(pruned: Pruned) -> None:
    before, after = weights(pruned.dense), weights(pruned.out / "checkpoint")
    assert before.keys() == after.keys()
    assert pruned.report.sparsity == 0.5
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = [matrix for block in pruned.report.blocks for matrix in block.matrices]
    assert changed == {matrix.name.partition("[")[0] for matrix in matrices}
    views = zip(read_matrices(pruned.dense), read_matrices(pruned.out / "checkpoint"), strict=True)
    for (name, dense), (same, weight) in views:
        assert name == same
        kept = weight != 0
        assert torch.equal(weight[kept], dense[kept])
        assert kept.sum() * 2 == kept.numel()


def test_the_result_reloads_in_a_fresh_process_to_equal_logits(pruned: Pruned) -> None:
    # the pipeline compares with a fresh process; the experts' sums are ordered differently there
    assert pruned.report.verification.max_logit_difference <= 1e-6
    assert pruned.report.verification.sample


def test_killed_and_resumed_equals_uninterrupted_bitwise(pruned: Pruned, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prune(pruned.dense, spec(), tmp_path, tokens=tiny.tokens(), observer=StopAfter(0))
    assert not (tmp_path / "checkpoint").exists()
    report = prune(pruned.dense, spec(), tmp_path, tokens=tiny.tokens())
    assert report.resumed_blocks == 1
    whole, resumed = weights(pruned.out / "checkpoint"), weights(tmp_path / "checkpoint")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_in_one_tensor_are_put_in_order_and_trained_each_by_itself(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = save_with_biases(tmp_path / "dense", "gpt_oss", dtype=dtype)
    wanted = n_of_m("fold", true_sequential=True, reconstruction={"learning_rate": 1e-3})
    report = prune(folder, wanted, tmp_path / "out", tokens=tiny.tokens())
    # the pipeline compares with stock transformers, whose sums are ordered differently
    assert report.verification.max_logit_difference <= (1e-6 if dtype == torch.float32 else 1e-2)
    names = [matrix.name for block in report.blocks for matrix in block.matrices]
    assert len(set(names)) == len(names) == tiny.BLOCKS * (4 + 4 * 3)
    assert "model.layers.2.mlp.experts.gate_up_proj[3.up]" in names
    for _, weight in read_matrices(tmp_path / "out" / "checkpoint"):
        assert valid(weight, 2, 4)
    before, after = weights(folder), weights(tmp_path / "out" / "checkpoint")
    assert {tensor.dtype for tensor in after.values()} == {dtype}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.removeprefix("model.layers.0.") for name in moved if ".0." in name} == {
        *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
        "self_attn.v_proj.bias",
        "mlp.experts.gate_up_proj",
        "mlp.experts.gate_up_proj_bias",
        "mlp.experts.down_proj",
    }
    for expert in range(4):  # gate's and up's biases moved together, as the neurons did
        name = "model.layers.0.mlp.experts.gate_up_proj_bias"
        old, new = (state[name][expert].view(-1, 2).tolist() for state in (before, after))
        assert sorted(old) == sorted(new)
        assert old != new
