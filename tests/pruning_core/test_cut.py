"""What is decided before a removal and written after it, in this process: factors, tied heads, tokens, warnings, progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.decide.dense_model import DenseModel
from pruning_core.decide.unit import decide
from pruning_core.errors import ModelInvalid, SizeUnreachable
from pruning_core.export import zero_outside
from pruning_core.export.cut import Cut, residual_factors
from pruning_core.model.streamed import StreamedModel
from pruning_core.model.tensors import new_zeros
from pruning_core.pipeline import run as runs
from pruning_core.pipeline.unit_walk import dense_model
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.patterns import Units
from pruning_core.spec.progress import Progress
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Origin
from pruning_core.spec.unit_methods import Diet
from pruning_core.structure.layout import Layout, layout_of
from pruning_core.system.progress import Tracker
from tests import tiny
from tests.pruning_core.runs import Watcher

CPU = torch.device("cpu")
ZERO = {"name": "units", "mode": "zero"}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def narrower(layout: Layout, **params: Any) -> UnitPlan:
    """Return the plan by which the last eight residual dimensions go."""
    size = layout.sizes.hidden
    sizes = replace(layout.sizes, hidden=size - 8)
    return UnitPlan(Diet(**params), Units(), layout, sizes, hidden=torch.arange(size - 8, size))


@pytest.fixture
def both(tmp_path: Path) -> Callable[[bool], Path]:
    """Return what saves a Gemma whose files have embedding and head, alike or not."""

    def save(alike: bool) -> Path:
        folder = tiny.save(tmp_path / "m", "gemma2", tie_word_embeddings=True)
        tensors = load_file(folder / "model.safetensors")
        tensors[HEAD] = tensors[EMBEDDING] + (0 if alike else 0.1)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return save


def opened(folder: Path) -> StreamedModel:
    return StreamedModel(folder, inspect(folder), CPU)


@pytest.mark.parametrize("alike", [True, False])
def test_a_head_counts_as_tied_where_the_loaded_model_ties_it(
    alike: bool, both: Callable[[bool], Path]
) -> None:
    model = opened(both(alike))
    assert model.config.tie_word_embeddings
    assert zero_outside.tied(model) == alike


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_is_scaled_as_its_embedding(tied: bool, both: Callable[[bool], Path]) -> None:
    folder = both(tied)
    plan = narrower(layout_of(inspect(folder)))
    factors = residual_factors(plan, torch.float32, tied=tied)
    assert factors["embedding"] != 1
    assert factors.get("head") == (factors["embedding"] if tied else None)
    cut = Cut(plan, {}, opened(folder).config, tied=tied)
    stored = load_file(folder / "model.safetensors")
    found = {}
    for name in (EMBEDDING, HEAD):
        slices = cut.slices(name, tuple(stored[name].shape), torch.float32)
        assert slices is not None
        found[name] = slices.apply(stored[name])
    assert torch.equal(found[EMBEDDING], found[HEAD]) == tied
    if not tied:
        assert torch.equal(found[HEAD], stored[HEAD][:, :-8])


def test_plain_slicing_scales_a_parameter_of_two_names_once(both: Callable[[bool], Path]) -> None:
    folder = both(True)
    model = opened(folder)
    plan = narrower(layout_of(inspect(folder)), rescale=False)
    before = model.model.get_input_embeddings().weight.clone()
    zero_outside._unscale_outside(model, plan)
    factor = residual_factors(plan, torch.float32, tied=True)["embedding"]
    torch.testing.assert_close(model.model.get_output_embeddings().weight, before / factor)


def test_zeros_are_counted_in_the_checkpoint_s_own_files(tmp_path: Path) -> None:
    before, after = (tiny.save(tmp_path / name, "llama") for name in ("before", "after"))
    tensors = load_file(after / "model.safetensors")
    tensors["model.norm.weight"][:5] = 0
    save_file(tensors, after / "model.safetensors", metadata={"format": "pt"})
    save_file({"x": torch.zeros(100)}, after / "adapter.safetensors")
    seen: list[None] = []
    assert new_zeros(before, after, lambda: seen.append(None)) == 5
    assert len(seen) == 2 * len(tensors)


# Decisions


def decision(source: Path, out: Path, method: Any, text: torch.Tensor, **others: Any) -> DenseModel:
    spec = PruneSpec.model_validate({"method": method, "evaluation": {"tasks": []}} | others)
    tracker, origin = Tracker(Watcher()), Origin(model="m")
    run = runs.prepare(source, spec, out, text, tracker, DataUsed(), runs.Provenance(origin))
    return dense_model(run, StreamedModel(source, run.facts, CPU))


def made(*args: Any, **others: Any) -> UnitPlan:
    with torch.no_grad():
        return decide(decision(*args, **others), "fingerprint", begun=False)


def narrow_text() -> torch.Tensor:
    """Return text of few tokens."""
    return tiny.tokens(6, 24).clamp_max(20)


TOKENS = {"name": "contextual", "parts": ["embedding"]}


@pytest.mark.parametrize("parts", [["embedding"], ["embedding", "activation"]])
def test_what_cannot_be_renumbered_is_refused_before_the_walk(
    parts: list[str], tmp_path: Path
) -> None:
    source = tiny.save(tmp_path / "m", "llama")
    (source / "generation_config.json").write_text(json.dumps({"forced_decoder_ids": [[1, 5]]}))
    asked = (source, tmp_path / "out", TOKENS | {"parts": parts}, narrow_text())
    amount = {"sparsity": 0.3} if len(parts) > 1 else {}
    with pytest.raises(ModelInvalid, match="forced_decoder_ids"):
        made(*asked, **amount)
    assert made(*asked, pattern=ZERO, **amount).vocabulary is not None


def test_the_rehearsal_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tiny.save(tmp_path / "m", "llama")
    plan = made(source, tmp_path / "out", TOKENS, narrow_text())
    assert plan.vocabulary is not None
    assert [path.name for path in (tmp_path / "out" / "work").iterdir()] == ["units.safetensors"]


def test_where_tokens_alone_reach_the_amount_no_text_is_walked(tmp_path: Path) -> None:
    source = tiny.save(tmp_path / "m", "llama")
    plan = made(
        source,
        tmp_path / "out",
        TOKENS | {"parts": ["embedding", "activation"]},
        narrow_text(),
        sparsity=0.005,
        refinement=["refit"],
    )
    assert any("Tokens alone" in text for text in plan.warnings)
    assert plan.score is None
    assert not plan.walks_text


def every_token(folder: Path) -> None:
    """Cut the vocabulary to what the tokenizer has, all of which must stay."""
    config = json.loads((folder / "config.json").read_text())
    count = len(tiny.tokenizer())
    tensors = load_file(folder / "model.safetensors")
    for name in (EMBEDDING, HEAD):
        tensors[name] = tensors[name][:count].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": count}))


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        (TOKENS, {"name": "units"}),
        (TOKENS, ZERO),
        ({"name": "contextual", "absolute": 1e-9}, ZERO),
    ],
)
def test_a_job_by_which_nothing_goes_is_refused(
    method: dict[str, Any], pattern: dict[str, Any], tmp_path: Path
) -> None:
    source = tiny.save(tmp_path / "m", "llama")
    every_token(source)
    with pytest.raises(SizeUnreachable, match="The threshold takes no"):
        made(source, tmp_path / "out", method, narrow_text(), pattern=pattern)


@pytest.mark.parametrize("in_bytes", [False, True])
def test_sizes_that_miss_a_budget_or_a_share_are_warned_of(in_bytes: bool, tmp_path: Path) -> None:
    source = tiny.save(tmp_path / "m", "llama")
    layout = layout_of(inspect(source))
    whole = layout.parameters(layout.sizes)
    step = whole - layout.parameters(replace(layout.sizes, layers=tiny.BLOCKS - 1))
    size = whole - round(0.8 * step)
    budget = {"bytes": 4 * size} if in_bytes else {"parameters": size}
    method = {"name": "random_units", "units": ["layers"]}
    for amount, says in (
        ({"budget": budget}, "bytes was asked for" if in_bytes else "parameters was asked for"),
        ({"sparsity": 1 - size / whole}, "of the parameters were asked for"),
    ):
        out = tmp_path / next(iter(amount))
        (warning,) = made(source, out, method, narrow_text(), **amount).warnings
        assert says in warning
        assert warning.endswith("the nearest legal sizes.")
    exact = {"budget": {"parameters": whole - step}}
    assert not made(source, tmp_path / "exact", method, narrow_text(), **exact).warnings


def test_means_that_one_read_out_cannot_keep_are_warned_of(tmp_path: Path) -> None:
    source = tiny.save(tmp_path / "m", "llama", attention_bias=True)
    for compensation, warned in (("bias", True), ("none", False)):
        method = {"name": "flap", "compensation": compensation}
        found = made(source, tmp_path / compensation, method, narrow_text(), sparsity=0.2)
        lost = [text for text in found.warnings if "has no bias" in text]
        assert len(lost) == warned
        assert all("neurons" in text for text in lost)


# Progress


class Steps:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.seen.append(progress)

    def alive(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look at the clock take a second."""
    now = iter(range(10_000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))


@pytest.mark.usefixtures("clock")
def test_a_phase_that_runs_longer_than_planned_takes_nothing_from_the_others() -> None:
    steps = Steps()
    tracker = Tracker(steps)
    tracker.plan({"pruning": 10.0, "saving": 10.0})
    for _ in range(2):
        tracker.begin("pruning", 2)
        for number in (1, 2):
            tracker.step(number)
    tracker.begin("saving")
    tracker.end()
    tracker.begin("verifying", 3)
    tracker.step(1)
    percents = [one.percent for one in steps.seen]
    assert percents == sorted(percents)
    assert percents[3:7] == [50.0] * 4
    assert percents[-1] == 100
    left = [one.seconds_remaining for one in steps.seen if one.seconds_remaining is not None]
    assert left
    assert min(left) >= 0
