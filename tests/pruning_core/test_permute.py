"""Orders of input channels: what they retain, and that folded ones leave the model's function alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import NumericalFailure, UnsupportedPattern
from pruning_core.families import FAMILIES, family_of
from pruning_core.model.channel_order import (
    AbsorbedPermutation,
    absorbed_permutation,
    channel_order,
    exchange_values,
    fold_of,
    retained,
)
from pruning_core.model.matrix import Matrix, input_groups
from pruning_core.model.streamed import StreamedModel
from tests import tiny

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)
PATTERNS = [(1, 4), (2, 4), (3, 4), (4, 8)]
HEAD_DIM = 8  # of every tiny model
CPU = torch.device("cpu")
Array = npt.NDArray[np.float64]


def random_score(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.randn(columns, generator=generator).exp()
    return torch.rand(rows, columns, generator=generator) * scale


def kept_sum(score: Array, n: int, m: int) -> float:
    """What `retained` says, one group after the other."""
    rows, columns = score.shape
    groups = [score[row, at : at + m] for row in range(rows) for at in range(0, columns, m)]
    return float(sum(sum(sorted(group)[-n:]) for group in groups))


def literal_values(groups: Array, n: int, place: int) -> Array:
    """Insert the score of h into group g, sort, and sum the n largest, for every pair."""
    rows, count, _ = groups.shape
    values = np.zeros((count, count))
    for g, h, row in itertools.product(range(count), range(count), range(rows)):
        group = groups[row, g].copy()
        group[place] = groups[row, h, place]
        values[g, h] += np.sort(group)[-n:].sum()
    return values


def literal_order(score: Array, n: int, m: int) -> list[int]:
    """Snake, then the best of all assignments for each place."""
    columns = score.shape[1]
    count = columns // m
    ascending = sorted(range(columns), key=lambda column: score[:, column].sum())
    groups = [[0] * m for _ in range(count)]
    for rank, column in enumerate(ascending):
        place, at = divmod(rank, count)
        groups[count - 1 - at if place % 2 else at][place] = column
    for place in range(m):
        values = literal_values(score[:, groups], n, place)
        best = max(
            itertools.permutations(range(count)),
            key=lambda taken: sum(values[g, h] for g, h in enumerate(taken)),
        )
        moved = [groups[h][place] for h in best]
        for group, column in zip(groups, moved, strict=True):
            group[place] = column
    return [column for group in groups for column in group]


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_retained_is_the_sum_of_the_largest_of_every_group(n: int, m: int) -> None:
    score = random_score(5, 24)
    assert retained(score, n, m) == pytest.approx(kept_sum(score.double().numpy(), n, m), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_the_closed_form_equals_insert_sort_and_sum(n: int, m: int) -> None:
    groups = random_score(6, 5 * m).view(6, 5, m)
    groups[0] = groups[0].round()  # ties
    for place in range(m):
        torch.testing.assert_close(
            exchange_values(groups, n, place),
            torch.from_numpy(literal_values(groups.double().numpy(), n, place)),
            rtol=1e-6,
            atol=0,
        )


@pytest.mark.parametrize(("n", "m"), PATTERNS)
def test_the_order_is_the_literal_snake_and_the_best_assignments(n: int, m: int) -> None:
    found = 0
    for seed in range(4):
        # channels alike, and rows enough for one assignment to be the best
        score = torch.rand(40, 4 * m, generator=torch.Generator().manual_seed(seed))
        expected = literal_order(score.double().numpy(), n, m)
        order = channel_order(score, n, m)
        if retained(score[:, expected], n, m) > retained(score, n, m):
            assert order.tolist() == expected
            found += 1
        else:
            assert order.tolist() == list(range(4 * m))
    assert found


@given(
    rows=st.integers(1, 12),
    groups=st.integers(1, 9),
    pattern=st.sampled_from([(1, 2), *PATTERNS]),
    seed=st.integers(0, 2**16),
    levels=st.sampled_from([0, 1, 3]),
)
@settings(deadline=None)
def test_an_order_is_a_permutation_that_never_retains_less(
    rows: int, groups: int, pattern: tuple[int, int], seed: int, levels: int
) -> None:
    n, m = pattern
    score = random_score(rows, groups * m, seed)
    if levels:
        score = (score * levels).round()  # many ties, zeros
    order = channel_order(score, n, m)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(groups * m))
    assert torch.equal(score[:, order][:, order.argsort()], score)
    before = kept_sum(score.double().numpy(), n, m)
    after = kept_sum(score[:, order].double().numpy(), n, m)
    assert after >= before * (1 - 1e-12)


def test_important_channels_that_lie_together_are_spread_out() -> None:
    column = torch.arange(64)
    score = torch.where(column % 8 < 4, 10.0, 1.0) + 0.01 * torch.rand(16, 64)
    order = channel_order(score, 2, 4)
    kept = score[:, order].view(16, 16, 4).topk(2).values
    assert kept.min() >= 10  # every important channel stays, in every row
    assert retained(score[:, order], 2, 4) > 1.7 * retained(score, 2, 4)


@pytest.mark.parametrize("columns", [4, 16])
def test_an_order_that_cannot_be_improved_stays(columns: int) -> None:
    score = torch.tensor([4.0, 1.0, 3.0, 0.0]).repeat(5, columns // 4)
    assert channel_order(score, 2, 4).tolist() == list(range(columns))


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NumericalFailure):
        channel_order(torch.full((2, 8), torch.nan), 2, 4)


def matrices_of(model: StreamedModel, block: nn.Module) -> list[Matrix]:
    groups = input_groups(block, model.family, model.config)
    return [matrix for group in groups for matrix in group.matrices]


def foldings(model: StreamedModel, matrices: list[Matrix]) -> list[AbsorbedPermutation]:
    found = [absorbed_permutation(one, matrices, model.family, model.config) for one in matrices]
    return [one for one in found if one is not None]


def opened(folder: Path) -> StreamedModel:
    return StreamedModel(folder, inspect(folder), CPU)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_fold_names_matrices_that_fit_together(model_type: str, tmp_path: Path) -> None:
    model = opened(tiny.save(tmp_path / "m", model_type))
    units = 128 if model_type == "gpt2" else 48
    with model.block(0) as block:
        found = foldings(model, matrices_of(model, block))
        groups = input_groups(block, model.family, model.config)
        heads, *plain = found
        assert heads.width == HEAD_DIM
        assert len(plain) == getattr(model.config, "num_local_experts", 1)
        assert {one.width for one in plain} == {units}
        for one in found:
            (rows,) = {writer.shape[0] for writer in one.writers}
            assert rows == one.groups * one.width
            assert one.reader.shape[1] % rows == 0
        # what only one matrix reads was made for it inside the block, save where that matrix is the first one
        alone = {group.matrices[0].name for group in groups if len(group.matrices) == 1}
        assert {one.reader.name for one in found} == alone - {"fc1", "mlp.c_fc"}


def test_an_expert_folds_into_its_own_matrices() -> None:
    family = family_of("mixtral")
    for expert in (1, 12):
        fold = fold_of(family, f"mlp.experts.{expert}.w2")
        assert fold is not None
        assert fold.writers == (f"mlp.experts.{expert}.w1", f"mlp.experts.{expert}.w3")
    assert fold_of(family, "mlp.experts.1.w1") is None
    assert fold_of(family_of("phi3"), "mlp.gate_up_proj[up]") is None


def random_order(fold: AbsorbedPermutation, seed: int) -> torch.Tensor:
    """An order of the reader's inputs that its writers can absorb, built head by head."""
    generator = torch.Generator().manual_seed(seed)
    inputs, rows = fold.reader.shape[1], fold.writers[0].shape[0]
    if "mlp" in fold.reader.name or "fc" in fold.reader.name:
        return torch.randperm(inputs, generator=generator)
    order: list[int] = []
    for start in range(0, rows, HEAD_DIM):
        within = torch.randperm(HEAD_DIM, generator=generator)
        for query in range(inputs // rows):
            order += (start * (inputs // rows) + query * HEAD_DIM + within).tolist()
    return torch.tensor(order)


def reordered(model: StreamedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Fold random orders into every block; yield the prunable weights and the biases said to have changed."""
    for index in range(len(model.blocks)):
        with model.block(index) as block:
            matrices = matrices_of(model, block)
            stored = {model.family.location(matrix.name).weight for matrix in matrices}
            biases = {one.module: model.family.location(one.name).bias for one in matrices}
            for seed, fold in enumerate(foldings(model, matrices)):
                order = random_order(fold, seed)
                fold.reader.view.copy_(fold.reader.view[:, order])
                stored |= {biases[module] for module in fold.reorder_writers(order)}
            state = block.state_dict()
            for name in stored:
                found = model.files.stored_name(model.block_prefix(index) + name)
                assert found is not None
                yield found, state[name].clone()


BIASED: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
    ("llama", {"num_key_value_heads": 4}),
    ("opt", {"enable_bias": False}),
]


@pytest.mark.parametrize(
    ("model_type", "changes"), [*((name, {}) for name in MODEL_TYPES), *BIASED]
)
def test_folding_leaves_the_stock_model_s_logits_alone(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "m", model_type, **changes)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for seed, name in enumerate(sorted(name for name in tensors if name.endswith("bias"))):
        generator = torch.Generator().manual_seed(seed)
        tensors[name] = 0.3 * torch.randn(tensors[name].shape, generator=generator)
    save_file(tensors, file, metadata={"format": "pt"})
    ids = tiny.tokens(2, 24)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        changed = dict(reordered(opened(folder)))
        assert (
            sum(not torch.equal(changed[name], tensors[name]) for name in changed)
            >= 4 * tiny.BLOCKS
        )
        biased = {name for name in changed if name.endswith("bias")}
        assert all(not torch.equal(changed[name], tensors[name]) for name in biased)
        save_file(tensors | changed, file, metadata={"format": "pt"})
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
    scale = float(expected.abs().max())
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * scale)


def test_the_query_heads_of_a_group_share_one_order_within_the_head(tmp_path: Path) -> None:
    model = opened(tiny.save(tmp_path / "m", "llama"))
    with model.block(0) as block:
        fold = foldings(model, matrices_of(model, block))[0]
        score = random_score(*fold.reader.shape)
        order = fold.order(score, 2, 4).tolist()
        heads = [order[at : at + HEAD_DIM] for at in range(0, 32, HEAD_DIM)]
        within = [[channel - HEAD_DIM * head for channel in heads[head]] for head in range(4)]
        assert all(sorted(head) == list(range(HEAD_DIM)) for head in within)
        assert within[0] == within[1]
        assert within[2] == within[3]
        assert within[0] != within[2]
        for group in (0, 1):
            columns = score[:, 16 * group : 16 * group + 16]
            stacked = torch.cat((columns[:, :8], columns[:, 8:]))
            assert within[2 * group] == channel_order(stacked, 2, 4).tolist()


def test_other_folds_order_all_inputs_at_once(tmp_path: Path) -> None:
    model = opened(tiny.save(tmp_path / "m", "gpt2"))
    with model.block(0) as block:
        fold = foldings(model, matrices_of(model, block))[1]
        score = random_score(*fold.reader.shape)
        assert torch.equal(fold.order(score, 2, 4), channel_order(score, 2, 4))


def test_heads_that_groups_do_not_divide_are_refused(tmp_path: Path) -> None:
    model = opened(tiny.save(tmp_path / "m", "llama"))
    with model.block(0) as block:
        fold = foldings(model, matrices_of(model, block))[0]
        with pytest.raises(UnsupportedPattern, match=r"o_proj.* 8 channels.*16"):
            fold.order(torch.ones(32, 32), 8, 16)
        with pytest.raises(AssertionError, match="absorb"):
            fold.reorder_writers(torch.arange(32).flip(0))
