"""Methods that remove units against independent formulas in NumPy, plain loops over stock models, and chance."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import STATISTICS, Collector, Stats
from pruning_core.numerics.least_squares import RIDGES
from pruning_core.plans.registry import unit_score
from pruning_core.prune.units import digest_of
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.unit_method import InnerKind, UnitMethod
from pruning_core.spec.unit_methods import FLAP, GOA, Contextual, Diet, RandomUnits, WandaSp
from pruning_core.structure.layout import layout_of
from pruning_core.structure.spans import Sizes
from pruning_core.system import device as devices
from pruning_core.unit_methods import contextual, diet, flap, goa, layer_drop, random_units
from pruning_core.unit_methods.diet import profiles
from pruning_core.unit_methods.layer_drop import influences, last_states
from pruning_core.units.attention_divergence import divergences, head_divergence, of_groups
from pruning_core.units.candidates import Candidates
from tests import tiny
from tests.examples import examples
from tests.pruning_core.trained import counting, loss_after, train
from tests.pruning_core.unit_runs import (
    BATCH,
    SHARED_HEADS,
    Result,
    fewer,
    finished,
    save,
    spec,
    stock,
    tokens,
)

Array = npt.NDArray[np.float64]
CPU = torch.device("cpu")
UNITS, CHANNELS = 4, 16
"""Of a small group: four channels per unit where they are heads."""
CLOSE = 1e-4
"""Float32 against float64."""


@pytest.fixture(autouse=True, scope="module")
def several_batches() -> Iterator[None]:
    """Let the calibration text come in batches, as a text of usual length does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "batch_tokens", lambda _device: BATCH)
        yield


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stats_of(values: torch.Tensor) -> Stats:
    collector = Collector(STATISTICS, values.shape[1], CPU)
    for part in torch.split(values, 37):
        collector.update(part)
    return collector.stats("test")


def inputs(width: int = 6, seed: int = 1) -> torch.Tensor:
    """Return what a module reads: correlated, with means, [tokens, width]."""
    return random(150, width, seed=seed) @ random(width, width, seed=seed + 1) + random(
        width, seed=9
    )


def neurons(
    h: torch.Tensor | None = None, *, gated: bool = True, biased: bool = False
) -> Candidates:
    """Return the neurons of a feed-forward; each of the channels is one."""
    writers = [random(CHANNELS, 6, seed=seed) for seed in (3, 4)][: 2 if gated else 1]
    biases = [random(CHANNELS, seed=seed) if biased else None for seed in (5, 6)][: len(writers)]
    x = inputs()
    if h is None:
        pre = [x @ w.T + (0 if b is None else b) for w, b in zip(writers, biases, strict=True)]
        h = torch.nn.functional.silu(pre[0]) * pre[1] if gated else pre[0].relu()
    return Candidates(
        kind="neurons",
        size=CHANNELS,
        readout=random(5, CHANNELS, seed=7),
        at_readout=stats_of(h),
        writers=tuple(writers),
        biases=tuple(biases),
        at_writers=stats_of(x),
    )


def groups(o: torch.Tensor | None = None, *, shared: int = 1) -> Candidates:
    """Return key-value groups of four channels, the values' times the query heads that share them."""
    each = CHANNELS // UNITS // shared
    rows = (UNITS * each * shared, UNITS * each, UNITS * each)
    return Candidates(
        kind="kv_groups",
        size=UNITS,
        readout=random(5, CHANNELS, seed=7),
        at_readout=stats_of(inputs(CHANNELS, seed=11) if o is None else o),
        writers=tuple(random(count, 6, seed=20 + i) for i, count in enumerate(rows)),
        biases=(None, None, None),
        at_writers=stats_of(inputs()),
    )


def score(params: UnitMethod, group: Candidates) -> torch.Tensor:
    return unit_score(params).score(group, params)


def array(tensor: torch.Tensor) -> Array:
    found: Array = tensor.double().numpy()
    return found


def per_unit(values: Array, kind: str) -> Array:
    return values.reshape(UNITS, -1) if kind == "kv_groups" else values[:, None]


def seen(kind: str) -> torch.Tensor:
    """Return inputs of a read-out, [tokens, channels]."""
    return inputs(CHANNELS, seed=11)


def group_of(kind: str, x: torch.Tensor) -> Candidates:
    return groups(x) if kind == "kv_groups" else neurons(x)


BOTH = pytest.mark.parametrize("kind", ["kv_groups", "neurons"])


# Wanda-sp


@BOTH
def test_wanda_sp_equals_the_formula_in_numpy(kind: str) -> None:
    x = seen(kind)
    group = group_of(kind, x)
    weight = array(group.readout)
    channels = np.sqrt((array(x) ** 2).mean(axis=0)) * np.abs(weight).mean(axis=0)
    expected = per_unit(channels, kind).sum(axis=1)
    np.testing.assert_allclose(score(WandaSp(), group), expected, rtol=CLOSE)


@BOTH
def test_wanda_sp_on_inputs_of_one_size_sums_columns(kind: str) -> None:
    signs = torch.randint(2, (60, CHANNELS)).mul(2).sub(1).float()
    group = group_of(kind, signs)
    expected = per_unit(np.abs(array(group.readout)).sum(axis=0) / 5, kind).sum(axis=1)
    np.testing.assert_allclose(score(WandaSp(), group), expected, rtol=CLOSE)


# FLAP


def flap_of_channels(x: torch.Tensor, weight: torch.Tensor) -> Array:
    """Return the output error that is left when one channel at a time is replaced by its mean."""
    found = []
    for channel in range(CHANNELS):
        replaced = array(x).copy()
        replaced[:, channel] = replaced[:, channel].mean()
        change = (replaced - array(x)) @ array(weight).T
        found.append((change**2).sum(axis=1).mean())
    return np.array(found)


@BOTH
def test_flap_equals_the_z_score_of_what_a_mean_leaves_of_the_error(kind: str) -> None:
    x = seen(kind)
    group = group_of(kind, x)
    channels = flap_of_channels(x, group.readout)
    channels = channels**2 if kind == "kv_groups" else channels
    z = (channels - channels.mean()) / channels.std()
    expected = per_unit(z, kind).mean(axis=1)
    np.testing.assert_allclose(score(FLAP(), group), expected, rtol=1e-3, atol=1e-4)


@BOTH
def test_flap_removes_what_is_constant_first_however_large(kind: str) -> None:
    x = seen(kind).clone()
    x[:, 4:8] = 100.0  # a whole group, or four neurons
    group = group_of(kind, x)
    expected = [1] if kind == "kv_groups" else [4, 5, 6, 7]
    found = unit_score(FLAP()).drop(group, len(expected))
    assert found.tolist() == expected


def test_a_constant_neuron_is_made_up_for_by_the_bias(tmp_path: Path) -> None:
    """Eight neurons of every block that a bias alone drives: nothing changes when they go."""
    source = save(tmp_path / "m", "opt")
    tensors = load_file(source / "model.safetensors")
    for index in range(tiny.BLOCKS):
        name = f"model.decoder.layers.{index}.fc1"
        tensors[f"{name}.weight"][:8] = 0
        tensors[f"{name}.bias"][:8] = torch.linspace(0.5, 2, 8)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    ids = tiny.tokens(2, 40, seed=8)
    with torch.no_grad():
        dense = stock(source)(ids).logits
        differences = []
        for compensation in ("none", "bias"):
            method = {"name": "flap", "compensation": compensation}
            amount = fewer(source, ("neurons",))
            result = finished(source, spec(method, **amount), tmp_path / compensation)
            assert result.report.sizes[0].after == 40
            units = [one for block in result.report.blocks for one in block.units]
            assert {one.digest for one in units} == {digest_of(torch.arange(8))}
            found = stock(result.checkpoint)(ids).logits
            differences.append(float((found - dense).abs().max() / dense.abs().max()))
    assert differences[0] > 1e-2
    assert differences[1] < 5e-6
    assert all(one.error is not None and one.error < 1e-3 for one in units)


@pytest.mark.parametrize("seed", range(5))
def test_flap_cuts_both_kinds_at_one_threshold(seed: int) -> None:
    """The curves are merged in steps; what is cut comes as near to the parameters as whole units can."""
    curves: dict[InnerKind, list[torch.Tensor]] = {
        "kv_groups": [random(4, seed=seed), random(4, seed=seed + 50)],
        "neurons": [random(20, seed=seed + 100), random(20, seed=seed + 150)],
    }
    weights: dict[InnerKind, int] = {"kv_groups": 50, "neurons": 9}
    means = {
        kind: np.mean([np.sort(array(one)) for one in found], axis=0)
        for kind, found in curves.items()
    }
    order = sorted((value, kind) for kind, values in means.items() for value in values)
    sums = np.cumsum([weights[kind] for _, kind in order])
    for wanted in (1, 60, 150, 250, 370):
        steps = int(np.sum(sums - np.array([weights[kind] for _, kind in order]) / 2 <= wanted))
        expected = sum(kind == "kv_groups" for _, kind in order[:steps])
        assert flap.groups_to_drop(curves, weights, wanted) == expected


# GOA


def expected_moment(weight: torch.Tensor, pre: Array) -> Array:
    found: Array = (array(weight) ** 2).sum(axis=0) * (pre**2).mean(axis=0)
    return found


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_goa_multiplies_the_moments_of_a_neuron_s_halves(gated: bool, biased: bool) -> None:
    group = neurons(gated=gated, biased=biased)
    expected = np.ones(CHANNELS)
    for writer, bias in zip(group.writers, group.biases, strict=True):
        pre = array(inputs()) @ array(writer).T + (0 if bias is None else array(bias))
        expected *= expected_moment(group.readout, pre)
    np.testing.assert_allclose(score(GOA(), group), expected, rtol=1e-3)


def test_goa_takes_a_gated_neuron_as_the_channel_it_is() -> None:
    group, params = neurons(), GOA(gated_form="channel")
    x, (gate, up) = array(inputs()), map(array, group.writers)
    pre = x @ gate.T
    h = pre / (1 + np.exp(-pre)) * (x @ up.T)
    np.testing.assert_allclose(score(params, group), expected_moment(group.readout, h), rtol=1e-3)


def test_goa_sums_a_group_s_channels() -> None:
    o = seen("kv_groups")
    expected = expected_moment(groups(o).readout, array(o)).reshape(UNITS, -1).sum(axis=1)
    np.testing.assert_allclose(score(GOA(), groups(o)), expected, rtol=CLOSE)


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_goa_without_data_takes_weights_alone(shared: int) -> None:
    params = GOA(covariance="identity")
    group = neurons()
    columns = (array(group.readout) ** 2).sum(axis=0)
    expected = np.prod([columns * (array(w) ** 2).sum(axis=1) for w in group.writers], axis=0)
    np.testing.assert_allclose(score(params, group), expected, rtol=CLOSE)
    heads = groups(shared=shared)
    each = CHANNELS // UNITS // shared
    values = (array(heads.writers[2]) ** 2).sum(axis=1).reshape(UNITS, 1, each)
    both = (array(heads.readout) ** 2).sum(axis=0).reshape(UNITS, shared, each) * values
    np.testing.assert_allclose(score(params, heads), both.sum(axis=(1, 2)), rtol=CLOSE)
    empty = replace(group, at_readout=Stats(tokens=0), at_writers=Stats(tokens=0))
    assert torch.equal(score(params, empty), score(params, group))


def scaled(group: Candidates, factor: float, writer: int) -> Candidates:
    """Scale one row of a level-one matrix up and the column of level two down: the same function."""
    rows = list(group.writers)
    biases = list(group.biases)
    rows[writer], readout = rows[writer].clone(), group.readout.clone()
    rows[writer][2] *= factor
    if biases[writer] is not None:
        biases[writer] = biases[writer].clone()  # type: ignore[union-attr]
        biases[writer][2] *= factor  # type: ignore[index]
    readout[:, 2] /= factor
    return replace(group, writers=tuple(rows), biases=tuple(biases), readout=readout)


@pytest.mark.parametrize("covariance", ["calibration", "identity"])
def test_goa_sees_the_function_of_a_plain_neuron_and_not_its_scale(covariance: str) -> None:
    params = GOA.model_validate({"covariance": covariance})
    group = neurons(gated=False)
    torch.testing.assert_close(score(params, scaled(group, 8.0, 0)), score(params, group))
    gated = neurons()
    assert not torch.allclose(score(params, scaled(gated, 8.0, 1)), score(params, gated))


def test_goa_sees_the_function_of_a_head_and_not_its_scale() -> None:
    o = seen("kv_groups")
    moved = o.clone()
    moved[:, 4] *= 8
    group = groups(moved)
    readout = group.readout.clone()
    readout[:, 4] /= 8
    torch.testing.assert_close(
        score(GOA(), replace(group, readout=readout)), score(GOA(), groups(o))
    )


# Divergence


def attention(samples: int = 3, heads: int = 4, rows: int = 5, seed: int = 0) -> torch.Tensor:
    """Return causal probabilities, some of them 0."""
    logits = 2 * random(samples, heads, rows, rows, seed=seed)
    hidden = torch.ones(rows, rows).triu(1).bool()
    return logits.masked_fill(hidden, -torch.inf).softmax(dim=-1)


def js(p: Sequence[float], q: Sequence[float]) -> float:
    """Return the divergence from its definition, as the mean of two Kullback-Leibler divergences."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += (a * math.log(a / middle) if a else 0) / 2
        total += (b * math.log(b / middle) if b else 0) / 2
    return total


def test_the_divergence_equals_a_loop_over_pairs_and_rows() -> None:
    probabilities = attention()
    samples, heads, rows, _ = probabilities.shape
    lists = probabilities.double().tolist()
    found = divergences(probabilities)
    for i, j in itertools.product(range(heads), repeat=2):
        expected = sum(
            js(lists[s][i][r], lists[s][j][r]) for s in range(samples) for r in range(rows)
        )
        assert float(found[i, j]) == pytest.approx(expected / rows, abs=1e-5)
    assert torch.equal(found, found.T)
    assert not found.diagonal().any()
    assert float(found.max()) <= samples * math.log(2)


def test_heads_that_never_look_alike_are_ln_2_apart() -> None:
    probabilities = torch.eye(2)[None, :, None, :].expand(3, 2, 4, 2)
    expected = 3 * math.log(2) * (1 - torch.eye(2))
    torch.testing.assert_close(divergences(probabilities), expected)


def test_groups_are_as_far_apart_as_their_heads_on_average() -> None:
    heads = divergences(attention(heads=6))
    found = of_groups(heads, 3)
    for i, j in itertools.permutations(range(3), 2):
        pairs = [heads[2 * i + a, 2 * j + b] for a in range(2) for b in range(2)]
        assert float(found[i, j]) == pytest.approx(float(sum(pairs)) / 4)
    assert not found.diagonal().any()
    assert torch.equal(of_groups(heads, 6), heads)


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "phi", "gpt2"])
def test_heads_are_compared_on_what_stock_attention_gives(model_type: str, tmp_path: Path) -> None:
    source = save(tmp_path / "m", model_type)
    ids = tiny.tokens(5, 20)
    whole: Any = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager").eval()
    model = StreamedModel(source, inspect(source), CPU, eager=True)
    layout = layout_of(inspect(source))
    with torch.no_grad(), model.block(0) as block:
        given_back = whole(ids, output_attentions=True).attentions[0]
        states = Activations(model, ids, batch_tokens=40)  # batches of two, two and one
        found = head_divergence(0, block, model.family, states, layout)
    expected = of_groups(divergences(given_back.float()) / 5, layout.sizes.kv_groups)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.max() > 1e-4


def symmetric(size: int, seed: int) -> torch.Tensor:
    found = torch.rand(size, size, generator=torch.Generator().manual_seed(seed)).triu(1)
    return found + found.T


@given(size=st.integers(2, 9), seed=st.integers(0, 2**31), threshold=st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=examples(200))
def test_a_later_twin_is_what_the_paper_s_scan_looks_for(
    size: int, seed: int, threshold: float
) -> None:
    divergence = symmetric(size, seed)
    marked: set[int] = set()
    for i in range(size):
        for j in range(i + 1, size):
            if divergence[i, j] < threshold and not {i, j} & marked:
                marked.add(i)
    scores = goa.later_twin(divergence)
    assert set((scores < threshold).nonzero().flatten().tolist()) == marked
    assert scores[-1] == torch.inf


@given(size=st.integers(2, 12), seed=st.integers(0, 2**31), data=st.data())
@settings(deadline=None, max_examples=examples(200))
def test_a_protected_head_s_twin_stays(size: int, seed: int, data: st.DataObject) -> None:
    n_drop = data.draw(st.integers(1, size // 2))
    divergence, moments = symmetric(size, seed), random(size, seed=seed % 1000).abs()
    dropped = goa.protected(divergence, moments, n_drop).tolist()
    assert len(set(dropped)) == n_drop
    assert dropped == sorted(dropped)
    assert dropped == slow_protected(divergence, moments, n_drop)


def slow_protected(divergence: torch.Tensor, moments: torch.Tensor, n_drop: int) -> list[int]:
    """Walk the pairs by rising divergence, and keep note of who stands in for whom."""
    size = len(divergence)
    pairs = sorted(itertools.combinations(range(size), 2), key=lambda p: float(divergence[p]))
    twin: dict[int, int] = {}
    for pair in pairs:
        if len(twin) == n_drop:
            break
        loser, winner = sorted(pair, key=lambda unit: float(moments[unit]))
        if loser not in twin and winner not in twin and loser not in twin.values():
            twin[loser] = winner
    assert len(twin) == n_drop
    assert not twin.keys() & set(twin.values())
    return sorted(twin)


@pytest.mark.parametrize("heads_by", ["similarity", "similarity_protected"])
def test_goa_chooses_heads_by_their_attention_and_neurons_by_moment(heads_by: str) -> None:
    params = GOA.model_validate({"heads_by": heads_by})
    divergence = symmetric(UNITS, 1)
    group = replace(groups(), divergence=divergence)
    found = unit_score(params).drop(group, 2).tolist()
    if heads_by == "similarity":
        assert found == sorted(goa.later_twin(divergence).argsort()[:2].tolist())
    else:
        assert found == slow_protected(divergence, goa.moment(group, params), 2)
    moments = unit_score(params).drop(neurons(), 3)
    assert torch.equal(moments, unit_score(GOA()).drop(neurons(), 3))


def test_goa_by_threshold_takes_the_mean_number_of_twins(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "qwen3", **SHARED_HEADS)
    whole: Any = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager").eval()
    with torch.no_grad():
        probabilities = whole(tokens(), output_attentions=True).attentions
    twins = [
        goa.later_twin(of_groups(divergences(one.float()) / len(tokens()), 4))
        for one in probabilities
    ]
    threshold = float(torch.stack(twins)[:, :3].flatten().sort().values[4:6].mean())
    taken = [int((one < threshold).sum()) for one in twins]
    assert sum(taken) == 5
    method = {
        "name": "goa",
        "heads_by": "similarity",
        "units": ["kv_groups"],
        "threshold": threshold,
    }
    result = finished(source, spec(method), tmp_path / "out")
    assert result.report.sizes[0].after == 4 - round(5 / 3)
    # of the first block, before any has gone: the nearest to a later one
    (units,) = result.report.blocks[0].units
    assert units.digest == digest_of(twins[0].argsort()[:2].sort().values)


# DIET


def importances(tasks: int = 3, size: int = 12, seed: int = 0) -> list[torch.Tensor]:
    return [random(size, seed=seed * 100 + task).abs() for task in range(tasks)]


def votes_of(found: list[torch.Tensor], n_drop: int) -> list[int]:
    names = [set(np.argsort(array(one), kind="stable")[:n_drop].tolist()) for one in found]
    return [sum(j in one for one in names) for j in range(len(found[0]))]


@given(tasks=st.integers(1, 7), n_drop=st.integers(1, 11), seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=examples(100))
def test_diet_drops_those_with_most_votes(tasks: int, n_drop: int, seed: int) -> None:
    found = importances(tasks, seed=seed)
    dropped = diet.merged(found, n_drop, Diet()).tolist()
    votes = votes_of(found, n_drop)
    assert len(dropped) == n_drop
    assert dropped == sorted(set(dropped))
    stays = [j for j in range(12) if j not in dropped]
    assert max(votes[j] for j in stays) <= min(votes[j] for j in dropped)
    assert all(j in dropped for j in range(12) if votes[j] == tasks)
    ranks = np.mean([np.argsort(np.argsort(array(one))) for one in found], axis=0)
    last = min(votes[j] for j in dropped)
    tied = [(ranks[j], j in stays) for j in range(12) if votes[j] == last]
    assert max(rank for rank, kept in tied if not kept) <= min(
        (rank for rank, kept in tied if kept), default=math.inf
    )
    assert diet.merged(found[::-1], n_drop, Diet()).tolist() == dropped
    majority = [j for j in range(12) if votes[j] * 2 > tasks]
    assert diet.merged(found, n_drop, Diet(merge="vote_strict")).tolist() == majority
    if len(majority) == n_drop:
        assert dropped == majority


def test_diet_of_one_task_drops_its_smallest() -> None:
    (one,) = importances(1)
    expected = np.sort(np.argsort(array(one))[:4]).tolist()
    for merge in ("vote", "vote_strict", "mean_score"):
        params = Diet.model_validate({"merge": merge})
        assert diet.merged([one], 4, params).tolist() == expected


def test_diet_by_mean_score_adds_importances() -> None:
    found = importances()
    expected = np.sort(np.argsort(np.mean([array(one) for one in found], axis=0))[:5])
    assert diet.merged(found, 5, Diet(merge="mean_score")).tolist() == expected.tolist()


def test_diet_with_nothing_to_tell_dimensions_apart_drops_the_first() -> None:
    for value in (0.0, 1.0):
        profile = torch.full((4, 12), value)
        one = diet.importance(profile, Diet())
        assert torch.isfinite(one).all()
        assert diet.merged([one, one], 3, Diet()).tolist() == [0, 1, 2]


@pytest.mark.parametrize("layer_reduce", ["mean", "max"])
@pytest.mark.parametrize("layer_norm", ["mean", "none"])
def test_diet_s_importance_equals_the_formula(layer_norm: str, layer_reduce: str) -> None:
    profile = random(4, 12).abs() * torch.tensor([[1.0], [2.0], [50.0], [7.0]])
    rows = array(profile)
    rows = rows / rows.mean(axis=1, keepdims=True) if layer_norm == "mean" else rows
    expected = rows.mean(axis=0) if layer_reduce == "mean" else rows.max(axis=0)
    params = Diet.model_validate({"layer_norm": layer_norm, "layer_reduce": layer_reduce})
    np.testing.assert_allclose(diet.importance(profile, params), expected, rtol=1e-5)


def states_of(source: Path, ids: torch.Tensor) -> list[torch.Tensor]:
    """Return the residual stream at the embeddings and after every block, from a stock model."""
    model = stock(source)
    blocks = model.get_submodule(inspect_blocks(source))
    found: list[torch.Tensor] = []
    blocks[0].register_forward_pre_hook(lambda _module, args: found.append(args[0]))
    for block in blocks:
        block.register_forward_hook(
            lambda _module, _args, output: found.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
    with torch.no_grad():
        model(ids)
    return found


def inspect_blocks(source: Path) -> str:
    return StreamedModel(source, inspect(source), CPU).family.blocks


@pytest.mark.parametrize("statistic", ["mean_abs", "rms"])
@pytest.mark.parametrize("bos", ["drop", "keep"])
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "opt"])
def test_diet_s_profile_is_that_of_a_plain_loop(
    model_type: str, bos: str, statistic: str, tmp_path: Path
) -> None:
    source = save(tmp_path / "m", model_type)
    tasks: Mapping[str, list[torch.Tensor]] = {
        "long": [tiny.tokens(3, 14, seed=2), tiny.tokens(2, 20, seed=3)],
        "short": [tiny.tokens(5, 6, seed=4)],
    }
    for given_ids in tasks.values():
        given_ids[0][::2, 0] = 1  # some samples begin as texts do
        given_ids[0][1, 3] = 1  # which elsewhere is a token like any other
    params = Diet.model_validate({"bos": bos, "statistic": statistic})
    model = StreamedModel(source, inspect(source), CPU)
    with torch.no_grad():
        found = profiles(model, tasks, params, 1, 30, lambda _index: None, lambda: None)
    assert found.keys() == tasks.keys()
    for task, given_ids in tasks.items():
        samples = []
        for sample in (row for group in given_ids for row in group):
            skip = 1 if bos == "drop" and sample[0] == 1 else 0
            rows = [array(state[0, skip:]) for state in states_of(source, sample[None])]
            sizes = [
                np.abs(row).mean(axis=0)
                if statistic == "mean_abs"
                else np.sqrt((row**2).mean(axis=0))
                for row in rows
            ]
            samples.append(np.stack(sizes))
        np.testing.assert_allclose(found[task], np.mean(samples, axis=0), rtol=1e-3, atol=1e-5)


def test_diet_s_choice_over_a_tiny_model_is_that_of_its_profile(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "llama")
    with torch.no_grad():
        states = states_of(source, tokens())
    rows = np.stack([np.abs(array(state)).mean(axis=(0, 1)) for state in states])
    small = np.argsort((rows / rows.mean(axis=1, keepdims=True)).max(axis=0))
    result = finished(source, spec("diet", sparsity=0.25), tmp_path / "out")
    stays = np.sort(small[8:])
    before, after = (load_file(one / "model.safetensors") for one in (source, result.checkpoint))
    assert torch.equal(
        after["model.embed_tokens.weight"], before["model.embed_tokens.weight"][:, stays]
    )


def test_diet_of_units_with_one_task_is_contextual_pruning(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "mixtral")
    results = [
        finished(source, spec(method, sparsity=0.2), tmp_path / method["name"])
        for method in ({"name": "contextual"}, {"name": "diet", "granularity": "units"})
    ]
    one, other = (
        [unit.digest for block in result.report.blocks for unit in block.units]
        for result in results
    )
    assert one == other
    assert len(set(one)) > 1


# Whole blocks


def four_blocks(tmp_path: Path) -> Path:
    return save(tmp_path / "m", "llama", num_hidden_layers=4)


def streamed(source: Path) -> StreamedModel:
    return StreamedModel(source, inspect(source), CPU)


def cosine(a: Array, b: Array) -> Array:
    found: Array = (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return found


def test_influence_is_one_minus_the_mean_cosine(tmp_path: Path) -> None:
    source = four_blocks(tmp_path)
    states = [array(state) for state in states_of(source, tokens())]
    expected = [1 - cosine(a, b).mean() for a, b in itertools.pairwise(states)]
    model = streamed(source)
    with torch.no_grad():
        found = influences(
            model, Activations(model, tokens(), batch_tokens=48), (), lambda _index: None
        )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_an_identity_block_goes_first_and_nothing_changes(tmp_path: Path) -> None:
    source = four_blocks(tmp_path)
    tensors = load_file(source / "model.safetensors")
    for part in ("self_attn.o_proj", "mlp.down_proj"):
        tensors[f"model.layers.2.{part}.weight"].zero_()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    model = streamed(source)
    with torch.no_grad():
        found = influences(model, Activations(model, tokens()), (), lambda _index: None)
        dense = stock(source)(tokens()).logits
    assert float(found[2]) == pytest.approx(0, abs=1e-6)
    for method in ({}, {"rescore": True}, {"contiguous": True}):
        wanted = spec({"name": "layer_drop"} | method, **fewer(source, ("layers",)))
        result = finished(source, wanted, tmp_path / f"out{len(method)}{[*method]}")
        assert result.report.removed_blocks == (2,)
        with torch.no_grad():
            left = stock(result.checkpoint)(tokens()).logits
        torch.testing.assert_close(left, dense, rtol=1e-5, atol=1e-5)


def test_states_of_zeros_turn_by_nothing_known(tmp_path: Path) -> None:
    source = four_blocks(tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors["model.embed_tokens.weight"].zero_()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    model = streamed(source)
    with torch.no_grad():
        found = influences(model, Activations(model, tokens()), (), lambda _index: None)
        ends = last_states(model, Activations(model, tokens()), lambda _index: None)
    assert found.tolist() == [1, 1, 1, 1]
    assert layer_drop.lowest(found, 2).tolist() == [0, 1]
    assert layer_drop.run_of(ends, 2).tolist() == [0, 1]


@pytest.mark.parametrize("n_drop", [1, 2, 3])
def test_a_run_is_the_one_that_turns_the_last_token_least(n_drop: int, tmp_path: Path) -> None:
    source = four_blocks(tmp_path)
    last = [array(state[:, -1]) for state in states_of(source, tokens())]
    angles = [
        np.arccos(cosine(last[start], last[start + n_drop])).mean() / math.pi
        for start in range(4 - n_drop + 1)
    ]
    model = streamed(source)
    with torch.no_grad():
        ends = last_states(model, Activations(model, tokens()), lambda _index: None)
    start = int(np.argmin(angles))
    assert layer_drop.run_of(ends, n_drop).tolist() == [*range(start, start + n_drop)]


def test_rescoring_measures_what_is_left_again(tmp_path: Path) -> None:
    """By a plain loop over a stock model from which blocks are taken one by one."""
    source = four_blocks(tmp_path)
    expected: list[int] = []
    for _ in range(2):
        model = stock(source)
        layers = model.model.layers
        left = [index for index in range(4) if index not in expected]
        found: dict[int, float] = {}

        def note(index: int, turned: dict[int, float]) -> Callable[..., None]:
            def hook(_module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
                turned[index] = 1 - cosine(array(args[0]), array(output)).mean()

            return hook

        for index in left:
            layers[index].register_forward_hook(note(index, found))
        model.model.layers = torch.nn.ModuleList([layers[index] for index in left])
        model.config.num_hidden_layers = len(left)
        with torch.no_grad():
            model(tokens(), use_cache=False)
        expected.append(min(found, key=lambda index: found[index]))
    layout = layout_of(inspect(source))
    size = layout.parameters(replace(layout.sizes, layers=2))
    wanted = spec({"name": "layer_drop", "rescore": True}, budget={"parameters": size})
    result = finished(source, wanted, tmp_path / "out")
    assert result.report.removed_blocks == tuple(sorted(expected))


# Chance and quiet


def test_random_units_follow_their_seed(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "llama")
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        method = {"name": "random_units", "units": ["neurons"], "seed": seed}
        result = finished(source, spec(method, sparsity=0.15), tmp_path / name)
        found.append([one.digest for block in result.report.blocks for one in block.units])
    assert found[0] == found[1] != found[2]
    assert len(set(found[0])) == tiny.BLOCKS


def test_random_units_prefer_none() -> None:
    counts = torch.zeros(10)
    for number in range(600):
        scores = random_units.score(replace(neurons(), size=10, seed=number), RandomUnits())
        counts[scores.argsort()[:3]] += 1
    assert counts.min() > 130
    assert counts.max() < 230  # 180 on average, with a deviation of 11


@BOTH
def test_contextual_equals_the_formula_in_numpy(kind: str) -> None:
    x = seen(kind)
    expected = per_unit(np.abs(array(x)).mean(axis=0), kind).mean(axis=1)
    np.testing.assert_allclose(score(Contextual(), group_of(kind, x)), expected, rtol=CLOSE)


def test_a_threshold_includes_what_lies_on_it() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert contextual.below(scores, Contextual(absolute=2)).tolist() == [True, True, False, False]
    assert contextual.below(scores, Contextual(relative=1)).tolist() == [True, True, True, False]
    zeros = torch.zeros(3)
    assert contextual.below(zeros, Contextual(absolute=0)).all()
    assert contextual.below(zeros, Contextual(relative=0.1)).all()


def test_tokens_stay_that_are_more_frequent_than_the_threshold() -> None:
    counts = torch.tensor([0, 1, 2, 97])
    for threshold, expected in ((0, [1, 2, 3]), (0.01, [2, 3]), (0.02, [3])):
        params = Contextual(token_threshold=threshold)
        assert contextual.tokens_to_keep(counts, params).nonzero().flatten().tolist() == expected


def test_a_threshold_removes_the_mean_of_what_it_takes_from_every_block(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "llama")
    model, quiet = stock(source), []
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_hook(
            lambda _module, args, _output: quiet.append(args[0].abs().mean(dim=(0, 1)))
        )
    with torch.no_grad():
        model(tokens())
    taken = [int((one <= 0.9 * one.mean()).sum()) for one in quiet]
    method = {"name": "contextual", "parts": ["activation"], "relative": 0.9}
    result = finished(
        source, spec(method, pattern={"name": "units", "multiple_of": 1}), tmp_path / "o"
    )
    assert len(set(taken)) > 1
    n_drop = round(sum(taken) / len(taken))
    assert result.report.sizes[0].before - result.report.sizes[0].after == n_drop
    for one, block in zip(quiet, result.report.blocks, strict=True):
        assert block.units[0].digest == digest_of(one.argsort()[:n_drop].sort().values)


# All of them


SCORED: list[UnitMethod] = [
    WandaSp(),
    FLAP(),
    GOA(),
    GOA(gated_form="channel"),
    GOA(covariance="identity"),
    Contextual(),
]


@pytest.mark.parametrize("value", [0.0, 1.0])
@BOTH
@pytest.mark.parametrize("params", SCORED, ids=str)
def test_dull_statistics_give_finite_scores(params: UnitMethod, kind: str, value: float) -> None:
    group = group_of(kind, torch.full((40, CHANNELS), value))
    writers = stats_of(torch.full((40, 6), value))
    found = score(params, replace(group, at_writers=writers))
    assert torch.isfinite(found).all()


@BOTH
@pytest.mark.parametrize("params", SCORED, ids=str)
def test_of_equals_the_first_go(params: UnitMethod, kind: str) -> None:
    group = group_of(kind, torch.zeros(40, CHANNELS))
    same = replace(
        group,
        readout=torch.ones_like(group.readout),
        writers=tuple(torch.ones_like(writer) for writer in group.writers),
        at_writers=stats_of(torch.zeros(40, 6)),
    )
    assert unit_score(params).drop(same, 3).tolist() == [0, 1, 2]


@BOTH
@pytest.mark.parametrize("params", [*SCORED, GOA(heads_by="similarity")], ids=str)
def test_the_lowest_scores_go(params: UnitMethod, kind: str) -> None:
    group = replace(group_of(kind, seen(kind)), divergence=symmetric(UNITS, 3))
    expected = np.sort(np.argsort(array(score(params, group)), kind="stable")[:3])
    assert unit_score(params).drop(group, 3).tolist() == expected.tolist()


# Better than chance


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that has learnt to count."""
    return train(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture(scope="module")
def frugal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that weight decay has left residual dimensions that hardly matter; in a model trained without, all matter alike."""
    folder = tmp_path_factory.mktemp("frugal") / "model"
    tied = {"hidden_size": 64, "head_dim": 8, "tie_word_embeddings": True}
    return train(folder, steps=200, weight_decay=2, **tied)


def pruned(source: Path, method: dict[str, Any], out: Path, sizes: dict[str, int]) -> Result:
    layout = layout_of(inspect(source))
    left: Sizes = replace(layout.sizes, **sizes)
    wanted: PruneSpec = spec(method, budget={"parameters": layout.parameters(left)})
    return finished(source, wanted, out, counting(32, 24, seed=100))


NEURONS = {"neurons": 32}
CONTESTS: list[tuple[dict[str, Any], str, dict[str, int]]] = [
    ({"name": "goa", "units": ["neurons"]}, "trained", NEURONS),
    ({"name": "goa", "units": ["neurons"], "gated_form": "channel"}, "trained", NEURONS),
    ({"name": "flap", "units": ["neurons"]}, "trained", NEURONS),
    ({"name": "wanda_sp", "units": ["neurons"]}, "trained", NEURONS),
    ({"name": "contextual", "parts": ["activation"]}, "trained", NEURONS),
    ({"name": "layer_drop"}, "trained", {"layers": 2}),
    ({"name": "diet"}, "frugal", {"hidden": 48}),
]
Chance = Callable[[str, dict[str, int]], list[float]]


@pytest.fixture(scope="module")
def at_random(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chance:
    """Return the losses after removing units at random, one per seed."""

    @functools.cache
    def losses(model: str, kind: str, left: int) -> list[float]:
        root = tmp_path_factory.mktemp("random")
        method = {"name": "random_units", "units": [kind]}
        source: Path = request.getfixturevalue(model)
        results = [
            pruned(source, method | {"seed": seed}, root / str(seed), {kind: left})
            for seed in range(5)
        ]
        return [loss_after(result.checkpoint, None) for result in results]

    return lambda model, sizes: losses(model, *next(iter(sizes.items())))


@pytest.mark.parametrize(("method", "model", "sizes"), CONTESTS, ids=str)
def test_better_than_random_on_a_small_trained_model(
    method: dict[str, Any],
    model: str,
    sizes: dict[str, int],
    at_random: Chance,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    source: Path = request.getfixturevalue(model)
    loss = loss_after(pruned(source, method, tmp_path, sizes).checkpoint, None)
    assert loss_after(source, None) < 1.0  # it has learnt something
    chance = at_random(model, sizes)
    assert loss < sum(chance) / len(chance)
    assert loss <= min(chance)


@pytest.mark.parametrize("target", ["same", "dense"])
def test_a_refit_makes_up_for_much_of_what_goes(target: str, trained: Path, tmp_path: Path) -> None:
    layout = layout_of(inspect(trained))
    size = layout.parameters(replace(layout.sizes, neurons=32))
    losses = []
    for name, refinement in (("off", []), ("on", [{"name": "refit", "target": target}])):
        method = {"name": "wanda_sp", "units": ["neurons"]}
        wanted = spec(method, budget={"parameters": size}, refinement=refinement)
        result = finished(trained, wanted, tmp_path / name, counting(32, 24, seed=100))
        losses.append(loss_after(result.checkpoint, None))
    units = [one for block in result.report.blocks for one in block.units]
    assert all(one.error < one.error_before_refit for one in units)  # type: ignore[operator]
    assert min(one.ridge or 0 for one in units) < max(RIDGES)  # the text decides
    assert losses[1] < losses[0]


@pytest.mark.parametrize("target", ["same", "dense"])
def test_a_ridge_is_found_where_none_is_given(target: str, trained: Path, tmp_path: Path) -> None:
    """With little text the fit is pulled harder, and is better than one that is not."""
    method = {"name": "wanda_sp", "units": ["neurons"]}
    losses: dict[float | str, float] = {}
    ridges: dict[float | str, set[float | None]] = {}
    for ridge in ("auto", 0.001):
        refit = {"name": "refit", "target": target, "ridge": ridge}
        wanted = spec(method, sparsity=0.2, refinement=[refit])
        result = finished(trained, wanted, tmp_path / str(ridge), counting(6, 8, seed=100))
        losses[ridge] = loss_after(result.checkpoint, None)
        ridges[ridge] = {one.ridge for block in result.report.blocks for one in block.units}
    assert ridges[0.001] == {0.001}
    assert ridges["auto"] <= {*RIDGES} - {0.001}
    assert losses["auto"] < losses[0.001]


# Fits, by hand


Flow = dict[str, tuple[Array, Array]]
"""Inputs and outputs, [tokens, width], of modules by name."""


def flow(source: Path, names: Sequence[str]) -> Flow:
    """Return what goes in and out of some modules of a stock model on the calibration text."""
    model, found = stock(source), {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            found[name] = tuple(array(one.flatten(0, -2)) for one in (args[0], output))

        return hook

    for name in names:
        model.get_submodule(name).register_forward_hook(note(name))
    with torch.no_grad():
        model(tokens())
    return found


def fitted(weight: Array, x: Array, y: Array, keep: npt.NDArray[np.intp], ridge: float) -> Array:
    """Return least squares for y = W x on some of the inputs, with a ridge towards the weight, [out, kept]."""
    x, start = x[:, keep], weight[:, keep]
    gram = x.T @ x / len(x)
    damp = ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    found: Array = start + (y - x @ start.T).T @ x / len(x) @ np.linalg.inv(gram + damp)
    return found


def silu(values: Array) -> Array:
    found: Array = values / (1 + np.exp(-values))
    return found


def kept_columns(weight: Array) -> npt.NDArray[np.intp]:
    return np.flatnonzero(weight.any(axis=0))


BLOCK = "model.layers.1"
PARTS = ("self_attn.o", "mlp.gate", "mlp.up", "mlp.down")


def zeroed(
    tmp_path: Path, method: dict[str, Any], **others: Any
) -> tuple[dict[str, Array], dict[str, Array], Flow, Flow]:
    """Return weights before and after of a block with others before it, and what flows through both models there."""
    source = save(tmp_path / "m", "llama")
    wanted = spec(method, sparsity=0.25, pattern={"name": "units", "mode": "zero"}, **others)
    result = finished(source, wanted, tmp_path / "out")
    assert {one.kind for one in result.report.sizes} == {"kv_groups", "neurons"}
    names = [f"{BLOCK}.{part}_proj" for part in PARTS]
    flows = [flow(one, names) for one in (source, result.checkpoint)]
    stored = [load_file(one / "model.safetensors") for one in (source, result.checkpoint)]
    before, after = ({name: array(one[f"{name}.weight"]) for name in names} for one in stored)
    return before, after, flows[0], flows[1]


def near(found: Array, expected: Array) -> None:
    """Float32 solutions of systems with a ridge of one per cent."""
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", ["same", "dense"])
def test_a_refit_is_least_squares_on_the_path_that_the_pruned_model_sees(
    target: str, tmp_path: Path
) -> None:
    refit = {"name": "refit", "target": target, "ridge": 0.02}
    before, after, dense, seen_now = zeroed(tmp_path, {"name": "wanda_sp"}, refinement=[refit])
    gate, up, down = (f"{BLOCK}.{part}_proj" for part in PARTS[1:])
    x = seen_now[gate][0]
    assert not np.allclose(x, dense[gate][0], rtol=0.01)
    h = silu(x @ before[gate].T) * (x @ before[up].T)
    y = h @ before[down].T if target == "same" else dense[down][1]
    keep = kept_columns(after[down])
    assert 0 < len(keep) < 48
    near(after[down][:, keep], fitted(before[down], h, y, keep, 0.02))
    size = np.sqrt((h**2).mean(axis=0)) * np.abs(before[down]).mean(axis=0)
    assert sorted(np.argsort(size)[: 48 - len(keep)].tolist()) == sorted({*range(48)} - {*keep})
    if target == "dense":
        o = f"{BLOCK}.self_attn.o_proj"
        keep = kept_columns(after[o])
        near(after[o][:, keep], fitted(before[o], seen_now[o][0], dense[o][1], keep, 0.02))


@pytest.mark.parametrize("gated_form", ["product", "channel"])
def test_goa_fits_level_one_then_two_then_scores_then_fits_what_stays(
    gated_form: str, tmp_path: Path
) -> None:
    method = {"name": "goa", "reconstruct": True, "ridge": 0.02, "gated_form": gated_form}
    before, after, dense, seen_now = zeroed(tmp_path, method)
    gate, up, down = (f"{BLOCK}.{part}_proj" for part in PARTS[1:])
    x, every = seen_now[gate][0], np.arange(48)
    first = {
        name: fitted(before[name], x, dense[name][1], np.arange(32), 0.02) for name in (gate, up)
    }
    pre = {name: x @ weight.T for name, weight in first.items()}
    h = silu(pre[gate]) * pre[up]
    second = fitted(before[down], h, dense[down][1], every, 0.02)
    columns = (second**2).sum(axis=0)
    moments = columns * (h**2).mean(axis=0)
    if gated_form == "product":
        moments = np.prod([columns * (one**2).mean(axis=0) for one in pre.values()], axis=0)
    keep = kept_columns(after[down])
    assert 0 < len(keep) < 48
    assert np.sort(np.argsort(moments)[48 - len(keep) :]).tolist() == keep.tolist()
    for name in (gate, up):
        near(after[name][keep], first[name][keep])
        assert not np.allclose(after[name][keep], before[name][keep], atol=1e-3)
    near(after[down][:, keep], fitted(second, h, dense[down][1], keep, 0.02))


def test_goa_spares_outer_blocks_and_takes_as_much_from_the_inner_ones(tmp_path: Path) -> None:
    source = save(tmp_path / "m", "llama", num_hidden_layers=8)
    method = {"name": "goa", "blocks": "inner", "units": ["neurons"]}
    wanted = spec(method, sparsity=0.05, pattern={"name": "units", "mode": "zero"})
    result = finished(source, wanted, tmp_path / "out")
    removed = [sum(one.removed for one in block.units) for block in result.report.blocks]
    assert [index for index, count in enumerate(removed) if count] == [4, 5]
    assert result.report.sparsity == pytest.approx(0.05, abs=0.005)
