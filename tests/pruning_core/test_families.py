"""What every family in the registry must do, on tiny random models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from pruning_core.engine.activations import Activations
from pruning_core.engine.blocks import run
from pruning_core.engine.matrix import InputGroup, Matrix, input_groups
from pruning_core.engine.model import StreamedModel
from pruning_core.errors import UnsupportedModel
from pruning_core.families import FAMILIES, family_of
from pruning_core.intake.checkpoint import inspect
from pruning_core.intake.config import SUPPORTED_MODEL_TYPES
from pruning_core.pipeline import prune
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Progress, Report
from tests import tiny

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)
CPU = torch.device("cpu")


def spec(**changes: Any) -> PruneSpec:
    fields = {"method": "wanda", "sparsity": 0.5, "evaluation": {"tasks": []}}
    return PruneSpec.model_validate(fields | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


class StopAfter:
    """An observer that ends the run as a kill would, once `block` has been stored."""

    def __init__(self, block: int) -> None:
        self._block = block

    def progress(self, progress: Progress) -> None:
        if progress.block is not None and progress.block.block == self._block:
            raise KeyboardInterrupt

    def alive(self) -> None:
        """Nothing to note."""


def test_the_submit_check_knows_the_same_architectures_as_the_registry() -> None:
    assert frozenset(MODEL_TYPES) == SUPPORTED_MODEL_TYPES
    with pytest.raises(UnsupportedModel, match="llama"):
        family_of("bert")


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
            weight = module.get_parameter("weight")
            assert ends[-1] * matrices[0].shape[1] == weight.numel()


def by_module(groups: list[InputGroup]) -> dict[nn.Module, list[Matrix]]:
    found: dict[nn.Module, list[Matrix]] = {}
    for group in groups:
        for matrix in group.matrices:
            found.setdefault(matrix.module, []).append(matrix)
    return found


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


def test_every_matrix_of_a_block_reaches_the_ratio_exactly(pruned: Pruned) -> None:
    before, after = weights(pruned.dense), weights(pruned.out / "checkpoint")
    assert before.keys() == after.keys()
    assert pruned.report.sparsity == 0.5
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = [matrix for block in pruned.report.blocks for matrix in block.matrices]
    assert changed == {matrix.name.partition("[")[0] for matrix in matrices}
    for name in changed:
        kept = after[name] != 0
        assert torch.equal(after[name][kept], before[name][kept])
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
