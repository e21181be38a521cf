"""Parts together, through whole runs on tiny models: allocation, method, order, refinements, reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.model.block_calls import run as block_run
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.phases import prune
from pruning_core.pipeline.report_warnings import PERMUTED_MASK
from pruning_core.selection.masks import Selector
from pruning_core.spec.patterns import Row, removed_count
from tests import tiny
from tests.pruning_core.runs import (
    CREPE,
    ORDER,
    Tensors,
    Watcher,
    n_of_m,
    oriented,
    removed,
    save_with_biases,
    spec,
    stored,
    tokens,
    valid,
)

# Everything at once


def test_allocation_method_swaps_and_polish_work_together(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    parts: dict[str, Any] = {
        "method": CREPE,
        "sparsity": 0.6,
        "allocation": "owl",
        "refinement": [{"name": "dsnot", "targets": "all"}, "polish"],
    }
    report = prune(dense("llama"), spec(**parts), tmp_path / "all", tokens=tokens())
    gone, weights = removed(list(report.blocks))
    assert gone == removed_count(0.6, weights)
    assert report.sparsity == gone / weights
    assert report.ratios is not None
    assert len(set(report.ratios)) == tiny.BLOCKS
    assert report.verification.max_logit_difference <= 1e-6
    for block, ratio in zip(report.blocks, report.ratios, strict=True):
        assert all(matrix.zeros == matrix.removed for matrix in block.matrices)
        assert all(abs(matrix.sparsity - ratio) < 0.01 for matrix in block.matrices)
    whole = load_file(tmp_path / "all" / "checkpoint" / "model.safetensors")
    # each part had its say in the first block, whose inputs are the same in every run
    first = [matrix.name for matrix in report.blocks[0].matrices]
    lesser = {
        name: stored(dense("llama"), spec(**parts | change), tmp_path / name)
        for name, change in {
            "no allocation": {"allocation": "uniform"},
            "no swaps": {"refinement": ["polish"]},
            "no polish": {"refinement": parts["refinement"][:1]},
            "no neighbours": {"method": "ria"},
        }.items()
    }
    for run in lesser.values():
        assert any(not torch.equal(run.tensors[name], whole[name]) for name in first)
    for name in first:
        assert torch.equal(lesser["no polish"].tensors[name] != 0, whole[name] != 0)
    for before, after in zip(
        lesser["no polish"].blocks[0].matrices, report.blocks[0].matrices, strict=True
    ):
        assert before.error is not None
        assert after.error is not None
        assert after.error < before.error


# n:m and channel orders


@dataclass(frozen=True)
class Folded:
    """A matrix whose inputs were put in order, and who must have followed.

    Attributes:
        reader: Stored name without `.weight`.
        writers: Stored names, and which of their rows.
        heads: Key-value heads, each 8 wide, or 0 where inputs are no heads.
    """

    reader: str
    writers: tuple[tuple[str, slice], ...]
    heads: int = 0


EVERY = slice(None)
FOLDS: dict[str, list[Folded]] = {
    "llama": [
        Folded("model.layers.0.self_attn.o_proj", (("model.layers.0.self_attn.v_proj", EVERY),), 2),
        Folded(
            "model.layers.2.mlp.down_proj",
            (("model.layers.2.mlp.gate_proj", EVERY), ("model.layers.2.mlp.up_proj", EVERY)),
        ),
    ],
    "gpt2": [
        Folded("transformer.h.0.attn.c_proj", (("transformer.h.0.attn.c_attn", slice(64, 96)),), 4),
        Folded("transformer.h.2.mlp.c_proj", (("transformer.h.2.mlp.c_fc", EVERY),)),
    ],
    "opt": [
        Folded(
            "model.decoder.layers.0.self_attn.out_proj",
            (("model.decoder.layers.0.self_attn.v_proj", EVERY),),
            4,
        ),
        Folded("model.decoder.layers.2.fc2", (("model.decoder.layers.2.fc1", EVERY),)),
    ],
    "phi3": [
        Folded(
            "model.layers.0.self_attn.o_proj",
            (("model.layers.0.self_attn.qkv_proj", slice(48, 64)),),
            2,
        ),
        Folded(
            "model.layers.2.mlp.down_proj",
            (
                ("model.layers.2.mlp.gate_up_proj", slice(48)),
                ("model.layers.2.mlp.gate_up_proj", slice(48, 96)),
            ),
        ),
    ],
    "mixtral": [
        Folded("model.layers.0.self_attn.o_proj", (("model.layers.0.self_attn.v_proj", EVERY),), 2),
        *(
            Folded(
                f"model.layers.1.block_sparse_moe.experts.{expert}.w2",
                tuple(
                    (f"model.layers.1.block_sparse_moe.experts.{expert}.{name}", EVERY)
                    for name in ("w1", "w3")
                ),
            )
            for expert in (0, 3)
        ),
    ],
}
FOLD_METHODS: dict[str, dict[str, Any]] = {
    "llama": {"method": CREPE},
    "gpt2": {"method": "wanda"},
    "opt": {"method": "ria"},
    "phi3": {"method": "wanda", "refinement": [{"name": "dsnot", "targets": "all"}]},
    "mixtral": {"method": "magnitude"},
}


def inferred_rows(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return the dense row that each pruned one comes from, told by survivors: none of these methods moves them."""
    same = (after[:, None] == before) | (after[:, None] == 0)
    found = same.all(dim=2)
    assert (found.sum(dim=1) == 1).all()
    return found.int().argmax(dim=1)


def inputs_of(rows: torch.Tensor, inputs: int, heads: int) -> torch.Tensor:
    """Return the order of the reader's inputs that follows: every query head takes its key-value head's."""
    if not heads:
        return rows
    queries = inputs // len(rows)
    order = []
    for head in range(heads):
        within = rows[8 * head : 8 * head + 8] - 8 * head
        assert sorted(within.tolist()) == list(range(8))
        order += [within + 8 * (head * queries + query) for query in range(queries)]
    return torch.cat(order)


@pytest.mark.parametrize("model_type", FOLDS)
def test_folded_orders_give_files_that_are_n_of_m_and_answer_as_memory_does(
    model_type: str, dense: Callable[[str], Path], tmp_path: Path
) -> None:
    report = prune(
        dense(model_type), n_of_m("fold", **FOLD_METHODS[model_type]), tmp_path, tokens=tokens()
    )
    assert report.verification.max_logit_difference <= 1e-6
    assert PERMUTED_MASK not in report.warnings
    assert not (tmp_path / "checkpoint" / "channel_order.safetensors").exists()
    before = load_file(dense(model_type) / "model.safetensors")
    after = load_file(tmp_path / "checkpoint" / "model.safetensors")
    pruned = {matrix.name.partition("[")[0] for b in report.blocks for matrix in b.matrices}
    assert all(valid(oriented(model_type, after[name]), 2, 4) for name in pruned)
    moved = 0
    for fold in FOLDS[model_type]:
        for writer, part in fold.writers:
            name, bias = f"{writer}.weight", f"{writer}.bias"
            old, new = (oriented(model_type, state[name])[part] for state in (before, after))
            rows = inferred_rows(old, new)
            assert sorted(rows.tolist()) == list(range(len(rows)))
            moved += int(not torch.equal(rows, torch.arange(len(rows))))
            name = f"{fold.reader}.weight"
            old, new = (oriented(model_type, state[name]) for state in (before, after))
            order = inputs_of(rows, old.shape[1], fold.heads)
            assert torch.equal(new, old[:, order] * (new != 0))
            assert (bias in before) == (model_type in ("gpt2", "opt"))
            if bias in before:
                assert torch.equal(after[bias][part], before[bias][part][rows])
    assert moved == sum(len(fold.writers) for fold in FOLDS[model_type])
    # what was neither pruned nor written by a folded matrix is the source's, byte for byte
    written = {f"{name}.bias" for name in (n.removesuffix(".weight") for n in pruned)}
    untouched = before.keys() - pruned - written
    assert untouched
    assert all(torch.equal(before[name], after[name]) for name in untouched)


def test_a_permuted_mask_comes_with_its_order_and_a_warning(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    wanted = n_of_m("mask", method="wanda", refinement=[{"name": "dsnot", "targets": "all"}])
    report = prune(dense("gpt2"), wanted, tmp_path, tokens=tokens())
    assert PERMUTED_MASK in report.warnings
    assert report.verification.max_logit_difference <= 1e-6
    assert "channel_order.safetensors" in {entry.path for entry in report.files}
    orders = load_file(tmp_path / "checkpoint" / "channel_order.safetensors")
    before = load_file(dense("gpt2") / "model.safetensors")
    after = load_file(tmp_path / "checkpoint" / "model.safetensors")
    matrices = [matrix for block in report.blocks for matrix in block.matrices]
    assert orders.keys() == {matrix.name for matrix in matrices}
    in_order = 0
    for matrix in matrices:
        name, _, part = matrix.name.partition("[")
        start = 32 * ("q", "k", "v").index(part.rstrip("]")) if part else 0
        rows = slice(start, start + matrix.shape[0])
        weight, source = after[name].T[rows], before[name].T[rows]
        order = orders[matrix.name]
        assert order.dtype == torch.int32
        assert sorted(order.tolist()) == list(range(matrix.shape[1]))
        assert valid(weight[:, order], 2, 4)
        in_order += valid(weight, 2, 4)
        # weights stay where they are
        assert torch.equal(weight, source * (weight != 0))
    assert in_order < len(matrices) / 2
    untouched = before.keys() - {matrix.name.partition("[")[0] for matrix in matrices}
    assert all(torch.equal(before[name], after[name]) for name in untouched)


@pytest.mark.parametrize(
    "parts",
    [
        {"method": "magnitude"},
        {"method": "sparsegpt"},
        {"method": {"name": "alps", "schedule": "gradual"}, "true_sequential": True},
        {"method": "alps", "reconstruction": {}},
        {"method": CREPE, "refinement": ["dsnot", "polish", "dsnot"]},
    ],
    ids=["magnitude", "sparsegpt", "gradual, in stages", "alps, trained", "crepe, refined"],
)
@pytest.mark.parametrize("permute", ["none", "fold", "mask"])
def test_n_of_m_holds_for_every_method_and_what_comes_after_it(
    parts: dict[str, Any], permute: str, dense: Callable[[str], Path], tmp_path: Path
) -> None:
    found = stored(dense("llama"), n_of_m(permute, 3, 8, **parts), tmp_path)
    for matrix in found.matrices:
        weight = found.tensors[matrix.name]
        assert (ORDER + matrix.name in found.tensors) == (permute == "mask")
        order = found.tensors.get(ORDER + matrix.name, torch.arange(matrix.shape[1]))
        assert valid(weight[:, order], 3, 8)
        assert matrix.removed * 8 == matrix.zeros * 8 == weight.numel() * 5


def test_orders_keep_more_of_the_score(dense: Callable[[str], Path], tmp_path: Path) -> None:
    kept = {
        permute: stored(dense("llama"), n_of_m(permute, method="magnitude"), tmp_path / permute)
        for permute in ("none", "fold", "mask")
    }
    for name in kept["none"].tensors:
        sums = {permute: float(run.tensors[name].abs().sum()) for permute, run in kept.items()}
        if "o_proj" in name or "down_proj" in name:
            assert sums["fold"] > sums["none"]
        else:
            assert sums["fold"] == pytest.approx(sums["none"], rel=1e-6)
        assert sums["mask"] > sums["none"]


# Allocation


@pytest.mark.parametrize(
    ("allocation", "pattern", "method"),
    [
        ("owl", "row", "sparsegpt"),
        ("alphapruning", "matrix", {"name": "alps", "schedule": "gradual"}),
        ({"name": "ramp", "delta": 0.3}, "row", "wanda"),
        ({"name": "ramp", "delta": 0.2}, "matrix", "magnitude"),
        ("owl", "matrix", "magnitude"),
    ],
)
def test_an_allocation_reaches_the_ratio_to_the_weight(
    allocation: Any, pattern: str, method: Any, dense: Callable[[str], Path], tmp_path: Path
) -> None:
    parts = {"method": method, "pattern": pattern, "sparsity": 0.53}
    found = stored(dense("opt"), spec(allocation=allocation, **parts), tmp_path)
    gone, weights = removed(found.blocks)
    assert gone == removed_count(0.53, weights)
    assert "allocating" in found.phases
    shares = []
    for block in found.blocks:
        gone, weights = removed([block])
        shares.append(gone / weights)
        for matrix in block.matrices:
            zeros = found.tensors[matrix.name] == 0
            assert int(zeros.sum()) == matrix.removed
            per_row = zeros.sum(dim=1)
            assert pattern == "matrix" or int(per_row.max() - per_row.min()) <= 1
    assert max(shares) - min(shares) > 0.005
    if isinstance(allocation, dict):
        delta = allocation["delta"]
        assert shares == pytest.approx([0.53 - delta, 0.53, 0.53 + delta], abs=1e-3)


# Stages


def input_of(folder: Path, tensors: Tensors, module: str) -> torch.Tensor:
    """Return what stock transformers feeds a module when some weights are replaced, [tokens, in]."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
        seen: list[torch.Tensor] = []
        model.get_submodule(module).register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
        model(tokens())
    return seen[0].flatten(0, 1)


@pytest.mark.parametrize("staged", [False, True])
def test_later_inputs_of_a_block_are_taken_before_or_after_its_earlier_matrices(
    staged: bool, dense: Callable[[str], Path], tmp_path: Path
) -> None:
    """Masks of the first block follow from what stock transformers feeds it, dense or pruned so far."""
    found = stored(dense("llama"), spec(true_sequential=staged), tmp_path)
    source = load_file(dense("llama") / "model.safetensors")
    before: Tensors = {}
    for names in (("self_attn.q", "self_attn.k", "self_attn.v"), ("self_attn.o",), ("mlp.down",)):
        if names == ("mlp.down",):
            before |= {
                n: found.tensors[n] for n in found.tensors if "s.0.mlp" in n and "down" not in n
            }
        for name in names:
            stem = f"model.layers.0.{name}_proj"
            inputs = input_of(dense("llama"), before if staged else {}, stem)
            weight = source[f"{stem}.weight"]
            score = weight.abs() * inputs.square().mean(dim=0).sqrt()
            keep = Selector(0.5, Row()).keep_mask(score)
            agreement = (keep == (found.tensors[f"{stem}.weight"] != 0)).float().mean()
            assert float(agreement) > 0.995  # sums in another order, near ties
        before |= {
            f"model.layers.0.{n}_proj.weight": found.tensors[f"model.layers.0.{n}_proj.weight"]
            for n in names
        }


@pytest.mark.parametrize("model_type", ["mixtral", "gpt2"])
def test_stages_change_what_comes_later_and_nothing_before(
    model_type: str, dense: Callable[[str], Path], tmp_path: Path
) -> None:
    runs = [
        stored(dense(model_type), spec(true_sequential=staged), tmp_path / str(staged))
        for staged in (False, True)
    ]
    plain, staged = (
        {matrix.name: run.tensors[matrix.name.partition("[")[0]] for matrix in run.matrices}
        for run in runs
    )
    assert list(plain) == list(staged)
    assert removed(runs[0].blocks) == removed(runs[1].blocks)
    first = runs[0].blocks[0].matrices
    early = [matrix.name for matrix in first[:3]]
    assert all(torch.equal(plain[name], staged[name]) for name in early)
    for name in (first[3].name, first[-1].name):
        assert not torch.equal(plain[name], staged[name])


# Reconstruction and resuming


TRAINED: dict[str, Any] = {"reconstruction": {"learning_rate": 1e-3, "epochs": 2}}


@pytest.mark.parametrize(
    ("dtype", "propagate"),
    [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)],
)
def test_a_killed_run_with_orders_and_training_ends_as_one_that_was_not(
    dtype: torch.dtype, propagate: bool, tmp_path: Path
) -> None:
    folder = save_with_biases(tmp_path / "dense", "opt", dtype=dtype)
    training = TRAINED["reconstruction"] | {"propagate": propagate}
    wanted = n_of_m("fold", method="wanda", reconstruction=training)
    whole = stored(folder, wanted, tmp_path / "whole")
    for stop in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            prune(folder, wanted, tmp_path / "killed", tokens=tokens(), observer=Watcher(stop))
    resumed = stored(folder, wanted, tmp_path / "killed")
    assert [block.block for block in resumed.blocks] == [2]
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert any(name.endswith("bias") for name in whole.tensors)
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    assert whole.blocks[2].reconstruction == resumed.blocks[0].reconstruction
    for block in whole.blocks:
        assert block.reconstruction is not None
        assert block.reconstruction.loss_after < block.reconstruction.loss_before


def test_training_is_on_inputs_of_the_dense_model_unless_told_otherwise(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    """The first block has no other inputs; later ones start from the same masks and another error."""
    losses = []
    for propagate in (False, True):
        training = {"learning_rate": 0, "propagate": propagate}
        wanted = spec(method="magnitude", reconstruction=training)
        run = stored(dense("llama"), wanted, tmp_path / str(propagate))
        losses.append([b.reconstruction.loss_before for b in run.blocks if b.reconstruction])
    assert losses[0][0] == losses[1][0]
    model = StreamedModel(dense("llama"), inspect(dense("llama")), torch.device("cpu"))
    with torch.no_grad():
        states = Activations(model, tokens(), batch_tokens=1)
        for index in range(tiny.BLOCKS):
            with model.block(index) as block:
                pairs = [
                    (hidden, call, block_run(block, hidden, call))
                    for hidden, call in states.inputs(index)
                ]
                weights = model.dense(index)
                for name in weights:
                    weights[name] = run.tensors.get(f"model.layers.{index}.{name}", weights[name])
            with model.block(index, weights) as block:
                error = [
                    (block_run(block, hidden, call) - target).square().mean()
                    for hidden, call, target in pairs
                ]
                # one of eight windows is held out
                assert float(error[7]) == pytest.approx(losses[0][index], rel=1e-4)
            states.hidden = [target for *_, target in pairs]
    assert losses[0][1] != pytest.approx(losses[1][1], rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trained_model_is_what_its_files_say(dtype: torch.dtype, tmp_path: Path) -> None:
    """The weights that later blocks and the verification see are those that the checkpoint can hold."""
    folder = tiny.save(tmp_path / "dense", "llama", dtype=dtype)
    report = prune(folder, spec(**TRAINED), tmp_path / "out", tokens=tokens())
    assert report.verification.max_logit_difference <= 1e-6
    after = load_file(tmp_path / "out" / "checkpoint" / "model.safetensors")
    before = load_file(folder / "model.safetensors")
    for block in report.blocks:
        for matrix in block.matrices:
            assert int((after[matrix.name] == 0).sum()) == matrix.removed
            kept = after[matrix.name] != 0
            assert not torch.equal(after[matrix.name][kept], before[matrix.name][kept])
