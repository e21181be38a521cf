"""Seconds of every method over those of a plain forward pass."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from bench.structured.cells import Kept
from bench.structured.measuring import MODELS, TEXT
from bench.structured.methods import ROWS
from pruning_core import settings
from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.run import Provenance, prepare
from pruning_core.pipeline.unit_walk import UnitWalk
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Origin
from pruning_core.spec.unit_methods import Diet
from pruning_core.system import device as devices
from pruning_core.system.progress import Silent, Tracker
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.text.task_reader import TaskReader
from pruning_core.unit_methods.diet import profiles

COST_TOKENS = 512
COST_RATIO = 0.2
COSTS: dict[str, dict[str, Any]] = {
    name: ROWS[name]
    for name in ("wanda_sp", "wanda_sp + refit", "flap", "flap + refit", "goa", "goa, reconstruct")
}


def cost(chosen: argparse.Namespace) -> None:
    """Measure CPU seconds of each method over those of a plain forward pass, one thread, in turn."""
    torch.set_num_threads(1)
    folder = MODELS[chosen.model]().resolve()
    tokens = _cost_tokens(folder, chosen)
    conditions = f"{len(tokens)} x {tokens.shape[1]} tokens, 1 thread"
    kept = Kept(chosen.results, "structured_cost", chosen.model, conditions)
    stock: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    actions: dict[str, Callable[[], float]] = {"diet, profile": lambda: _profile(folder, tokens)}
    actions |= {
        name: lambda asked=asked: _walk(folder, asked, tokens) for name, asked in COSTS.items()
    }
    _plain(stock.base_model, tokens[:2])
    for name, action in actions.items():
        if chosen.only not in name or name in kept:
            continue
        rounds = [
            (action(), _cpu(lambda: _plain(stock.base_model, tokens))) for _ in range(chosen.rounds)
        ]
        pruned, plain = (statistics.median(side) for side in zip(*rounds, strict=True))
        figures = {"cpu_seconds": pruned, "forward_seconds": plain, "ratio": pruned / plain}
        kept.keep(name, {key: round(figure, 3) for key, figure in figures.items()})


def _cost_tokens(folder: Path, chosen: argparse.Namespace) -> torch.Tensor:
    """Return windows of a file, or of the text that calibrates elsewhere."""
    if chosen.tokens:
        return torch.from_numpy(np.load(chosen.tokens)["tokens"]).long()[: chosen.windows]
    asked = {"tasks": [{"name": TEXT, "samples": chosen.windows}], "seq_len": COST_TOKENS}
    reader = TaskReader(folder, inspect(folder), DataUsed(settings.tasks_dir()))
    return calibration_windows(reader, Calibration.model_validate(asked))[0].groups[0]


def _cpu(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def _plain(body: Any, tokens: torch.Tensor) -> None:
    for batch in tokens.split(max(1, devices.batch_tokens(body.device) // tokens.shape[1])):
        body(input_ids=batch.to(body.device), use_cache=False)


def _profile(folder: Path, tokens: torch.Tensor) -> float:
    """Return the seconds of DIET's pass over the text."""
    model = StreamedModel(folder, inspect(folder), torch.device("cpu"))
    asked = ({"given": (tokens,)}, Diet(), None, devices.batch_tokens(model.device))
    return _cpu(lambda: profiles(model, *asked, lambda _index: None, lambda: None))


def _walk(folder: Path, asked: dict[str, Any], tokens: torch.Tensor) -> float:
    """Return the seconds of deciding and pruning as a job does, up to the last stored block."""
    spec = PruneSpec.model_validate(asked | {"sparsity": COST_RATIO, "evaluation": {"tasks": []}})
    with tempfile.TemporaryDirectory() as out:
        data_used = DataUsed(settings.tasks_dir())
        run = prepare(
            folder,
            spec,
            Path(out),
            tokens,
            Tracker(Silent()),
            data_used,
            Provenance(Origin(model=str(folder))),
        )
        model = StreamedModel(folder, run.facts, run.device)
        return _cpu(lambda: UnitWalk.of(run, model, "bench").walk.run(lambda _index, _report: None))
