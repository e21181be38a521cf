"""Searches and other decisions in whole runs on tiny models: made once, reported, obeyed, never mixed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.decide.search import WORST, CandidateEvaluator, search, with_coefficients
from pruning_core.element_methods import crepe
from pruning_core.errors import DatasetTooSmall, NumericalFailure, PresetNotFound, ResumeMismatch
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.pipeline.phases import prune
from pruning_core.searches.space import RIA
from pruning_core.selection.masks import Selector
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.element_methods import CRePE
from pruning_core.spec.patterns import MatrixWide
from pruning_core.spec.report_parts.search import SearchReport
from pruning_core.system.progress import Silent, Tracker
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.text.task_reader import TaskReader
from pruning_core.text.windows import Windows
from tests import tiny
from tests.pruning_core.runs import (
    Watcher,
    removed,
    spec,
    stored,
    tokens,
)

PHO = {"name": "pho", "generations": 3, "population": 4, "windows": 3}


def crepe_with(search_params: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "crepe", "search": search_params, **fields}


def test_a_search_is_made_once_reported_and_obeyed(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    wanted = spec(method=crepe_with(PHO, neighbour="ratio"), allocation="owl")
    whole = stored(dense("llama"), wanted, tmp_path / "whole")
    assert {"searching", "allocating"} <= set(whole.phases)
    with pytest.raises(KeyboardInterrupt):
        prune(dense("llama"), wanted, tmp_path / "killed", tokens=tokens(), observer=Watcher(0))
    watcher = Watcher()
    report = prune(dense("llama"), wanted, tmp_path / "killed", tokens=tokens(), observer=watcher)
    assert not {"searching", "allocating"} & {progress.phase for progress in watcher.seen}
    assert report.resumed_blocks == 1
    after = load_file(tmp_path / "killed" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in whole.tensors.items())

    found = report.search
    assert found is not None
    assert report.spec == wanted
    assert (found.name, found.windows) == ("pho", 3)
    assert found.evaluations == len(found.trials) <= 1 + 3 * 4
    assert (found.trials[0].g, found.trials[0].b, found.trials[0].kernel) == (0, 0.5, 3)
    assert found.digest == Windows((tokens()[5:],), {}).digest
    assert report.calibration is not None
    assert report.calibration.digest == Windows((tokens()[:5],), {}).digest
    assert any("nothing better than RIA" in text for text in report.warnings) == found.kept_ria

    explicit = {key: getattr(found, key) for key in ("alpha", "beta", "gamma", "kernel")}
    direct = stored(
        dense("llama"),
        spec(method={"name": "crepe", **explicit}, allocation="owl"),
        tmp_path / "direct",
        tokens()[:5],
    )
    assert all(torch.equal(tensor, direct.tensors[name]) for name, tensor in whole.tensors.items())


def test_the_kernel_that_was_found_is_the_one_that_prunes(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    """A decision from disk stands for any search that ended with a neighbourhood."""
    wanted = spec(method=crepe_with(PHO, exponent=1.0))
    with pytest.raises(KeyboardInterrupt):
        prune(dense("llama"), wanted, tmp_path / "a", tokens=tokens(), observer=Watcher(0))
    path = tmp_path / "a" / "work" / "decided.json"
    decided = json.loads(path.read_text())
    found = {"alpha": 0.2, "beta": 0.4, "gamma": 1.4, "kernel": 9}
    decided["search"] |= found
    path.write_text(json.dumps(decided))
    (tmp_path / "a" / "work" / "ledger.json").unlink()
    searched_run = stored(dense("llama"), wanted, tmp_path / "a")
    method = {"name": "crepe", "exponent": 1.0, **found}
    direct = stored(dense("llama"), spec(method=method), tmp_path / "b", tokens()[:5])
    for name, tensor in direct.tensors.items():
        assert torch.equal(tensor, searched_run.tensors[name])


def searched(folder: Path, params: dict[str, Any]) -> SearchReport:
    """Search on three windows of text, with statistics from five."""
    model = StreamedModel(folder, inspect(folder), torch.device("cpu"))
    asked = CRePE.model_validate(crepe_with(params))
    assert asked.search is not None
    with torch.no_grad():
        states = Activations(model, tokens()[:5])
        return search(asked.search, evaluator(model, asked), states)


def evaluator(model: StreamedModel, method: CRePE) -> CandidateEvaluator:
    text = Windows((tokens()[5:],), {"given": 3})
    return CandidateEvaluator(model, method, Selector(0.5, MatrixWide()), text, Tracker(Silent()))


def stock_perplexity(folder: Path, method: CRePE) -> float:
    """Perplexity of stock transformers with every matrix masked at once, by inputs of the dense model."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    modules = {name: module for name, module in model.named_modules() if name.endswith("_proj")}
    squares: dict[str, torch.Tensor] = {}

    def look(name: str, args: tuple[torch.Tensor, ...]) -> None:
        squares[name] = args[0].flatten(0, 1).square().mean(dim=0)

    hooks = [
        module.register_forward_pre_hook(lambda _m, args, name=name: look(name, args))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        model(tokens()[:5])
        for hook in hooks:
            hook.remove()
        for name, module in modules.items():
            stats = Stats(tokens=120, column_mean_square=squares[name])
            score = crepe.score(module.weight, stats, method)
            module.weight.mul_(Selector(0.5, MatrixWide()).keep_mask(score))
        ids = tokens()[5:]
        return math.exp(float(model(ids, labels=ids).loss))


def used(found: SearchReport) -> CRePE:
    return CRePE(alpha=found.alpha, beta=found.beta, gamma=found.gamma, kernel=found.kernel)


@pytest.mark.parametrize(
    "params",
    [PHO, {"name": "hill_climb", "evaluations": 12, "windows": 3}],
    ids=lambda p: p["name"],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_search_keeps_ria_unless_its_text_prefers_what_was_found(
    params: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "m", "llama", seed=seed)
    found = searched(folder, params)
    assert found.perplexity_ria == pytest.approx(stock_perplexity(folder, CRePE()), rel=1e-4)
    assert found.kept_ria == (found.perplexity_found >= found.perplexity_ria)
    if found.kept_ria:
        assert (found.alpha, found.beta, found.gamma) == (1, 1, 0)
    else:
        assert (found.alpha, found.beta, found.gamma) != (1, 1, 0)
        assert found.perplexity_found == pytest.approx(
            stock_perplexity(folder, used(found)), rel=1e-4
        )
    if params["name"] == "pho":
        best = min(found.trials, key=lambda trial: trial.value)
        for g in (best.g, 0.0):
            point = with_coefficients(CRePE(), g, best.b, best.kernel)
            assert found.perplexity_found <= stock_perplexity(folder, point) * (1 + 1e-4)
    else:
        values = [trial.value for trial in found.trials]
        assert values[0] == found.perplexity_ria
        assert found.perplexity_found == min(values)


def test_a_search_of_one_candidate_keeps_ria(dense: Callable[[str], Path]) -> None:
    found = searched(dense("llama"), {"name": "hill_climb", "evaluations": 1, "windows": 3})
    assert found.kept_ria
    assert found.perplexity_found == found.perplexity_ria
    assert used(found) == CRePE()


def test_search_text_is_calibration_text_that_calibration_does_not_use(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    text = "".join(chr(97 + place % 26) + chr(65 + place // 26) for place in range(52))
    line = json.dumps({"text": text})  # 104 tokens, no two windows of 8 alike
    (tmp_path / "mine" / "calibration.jsonl").write_text(line + "\n")
    reader = TaskReader(dense("llama"), inspect(dense("llama")), DataUsed(tmp_path))

    def drawn(samples: int | None, held_out: int) -> list[set[tuple[int, ...]]]:
        fields = {"tasks": [{"name": "mine", "samples": samples}], "seq_len": 8}
        both = calibration_windows(reader, Calibration.model_validate(fields), held_out=held_out)
        return [
            {tuple(row) for group in windows.groups for row in group.tolist()} for windows in both
        ]

    everything, nothing = drawn(None, 0)
    assert (len(everything), len(nothing)) == (13, 0)
    for samples in (10, None):
        windows, others = drawn(samples, 3)
        assert windows | others == everything
        assert (len(windows), len(others)) == (10, 3)
    assert drawn(4, 3)[0] == drawn(4, 0)[0]
    with pytest.raises(
        DatasetTooSmall, match="13 samples, of 8 tokens; 11 were asked for beside 3"
    ):
        drawn(11, 3)


def test_a_search_that_leaves_no_window_to_calibrate_on_is_refused(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(DatasetTooSmall, match="3 of the given windows are held out"):
        prune(dense("llama"), spec(method=crepe_with(PHO)), tmp_path, tokens=tokens()[:3])


def test_a_run_on_other_search_text_is_another_run(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    """What was searched on decides the coefficients, and so the bytes."""
    wanted = spec(method=crepe_with(PHO))
    with pytest.raises(KeyboardInterrupt):
        prune(dense("llama"), wanted, tmp_path, tokens=tokens(), observer=Watcher(0))
    other = tokens()
    other[5:] = tiny.tokens(3, 24, seed=99)
    with pytest.raises(ResumeMismatch):
        prune(dense("llama"), wanted, tmp_path, tokens=other)


def test_an_unknown_preset_is_refused_before_any_work(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    watcher = Watcher()
    wanted = spec(method={"name": "crepe", "preset": "nowhere"})
    with pytest.raises(PresetNotFound, match="'nowhere'"):
        prune(dense("llama"), wanted, tmp_path / "out", tokens=tokens(), observer=watcher)
    assert not watcher.seen
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_what_was_decided_by_another_run_is_decided_again(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    """The ledger refuses blocks of another run; a decision alone is no work worth refusing for."""
    (tmp_path / "work").mkdir()
    wrong = {"fingerprint": "sha256:other", "ratios": [0.1, 0.1, 0.1]}
    for content in (json.dumps(wrong), "no json"):
        (tmp_path / "work" / "decided.json").write_text(content)
        watcher = Watcher(0)
        with pytest.raises(KeyboardInterrupt):
            prune(
                dense("llama"),
                spec(method="magnitude", allocation={"name": "ramp", "delta": 0.2}),
                tmp_path,
                observer=watcher,
            )
        (block,) = (progress.block for progress in watcher.seen if progress.block)
        gone, weights = removed([block])
        assert gone / weights == pytest.approx(0.3, abs=1e-3)
        for path in (tmp_path / "work").iterdir():
            path.unlink()


def test_blocks_without_the_decision_before_them_are_refused(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    """Deciding anew could give the rest of the model other ratios."""
    wanted = spec(method="magnitude", allocation={"name": "ramp", "delta": 0.2})
    with pytest.raises(KeyboardInterrupt):
        prune(dense("llama"), wanted, tmp_path, observer=Watcher(0))
    (tmp_path / "work" / "decided.json").unlink()
    with pytest.raises(ResumeMismatch, match="decided before"):
        prune(dense("llama"), wanted, tmp_path)


def test_a_candidate_that_ruins_the_model_is_the_worst_and_ria_an_error(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path / "m", "llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] *= 1e6  # every loss is beyond what a perplexity can say
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = StreamedModel(folder, inspect(folder), torch.device("cpu"))
    candidates = evaluator(model, CRePE())
    with torch.no_grad():
        candidates.observe(Activations(model, tokens()[:5]), lambda _g, _s: None, lambda _i: None)
        assert candidates.perplexity(0.5, 0.5, 5) == WORST
        with pytest.raises(NumericalFailure):
            candidates.perplexity(*RIA)
