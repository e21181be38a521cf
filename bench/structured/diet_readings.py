"""What settles how DIET's paper is to be read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from bench.structured.cells import Kept, amount, fill
from bench.structured.measuring import RESIDUAL, TASKS, Bench
from pruning_core.errors import SizeUnreachable
from pruning_core.model.matrix import input_groups
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.unit_methods import Diet
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.layout import layout_of
from pruning_core.structure.target import Target
from pruning_core.system import device as devices
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.unit_methods import diet
from pruning_core.unit_methods.diet import profiles
from pruning_core.units.unit_groups import zero_residual

BASE = {"layer_reduce": "mean"}
"""The reading of DIET's paper that others differ from in one thing."""


@dataclass(frozen=True)
class Reading:
    """One way to read DIET's paper: which texts, which parameters, whose votes."""

    params: Diet = field(default_factory=lambda: Diet.model_validate(BASE))
    answers: bool = True
    tasks: tuple[str, ...] = TASKS

    @property
    def profile(self) -> tuple[bool, str, str]:
        """What its pass over the text depends on."""
        return self.answers, self.params.bos, self.params.statistic


READINGS = {
    "base": Reading(),
    **{
        f"{name} {value}": Reading(Diet.model_validate(BASE | {name: value}))
        for name, value in (
            ("layer_norm", "none"),
            ("layer_reduce", "max"),
            ("merge", "vote_strict"),
            ("merge", "mean_score"),
            ("bos", "keep"),
            ("statistic", "rms"),
        )
    },
    "prompt alone": Reading(answers=False),
    **{f"{task} alone": Reading(tasks=(task,)) for task in TASKS},
}
"""Measured with zeros in memory."""
RESIDUAL_JOBS: dict[str, dict[str, Any]] = {
    "removed": {"method": {"name": "diet"} | BASE},
    "removed, rescale off": {"method": {"name": "diet", "rescale": False} | BASE},
    "random dimensions": {"method": {"name": "random_units", "units": ["hidden"]}},
}
OTHER_JOBS: dict[str, dict[str, Any]] = {
    "removed, granularity units": {"method": {"name": "diet", "granularity": "units"}},
    "granularity per_layer": {
        "method": {"name": "diet", "granularity": "per_layer"} | BASE,
        "pattern": {"name": "units", "mode": "zero"},
    },
}


class Readings:
    """Masks over residual dimensions from as few passes over the text as there are different ones."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._profiles: dict[tuple[bool, str, str], Mapping[str, torch.Tensor]] = {}
        self._cutter = Cutter(layout_of(bench.facts), RESIDUAL[bench.name])

    def measure(self, reading: Reading, ratio: float) -> dict[str, Any]:
        """Zero what a reading drops, and measure what is left."""
        before = self._cutter.layout.sizes.hidden
        try:
            sizes = Target.of(self._cutter, ratio, None).solve(("hidden",))
        except SizeUnreachable as error:
            return {"refused": error.message}
        task_profiles = self._profile(reading)
        importances = [
            diet.importance(task_profiles[task], reading.params) for task in reading.tasks
        ]
        dropped = diet.merged(importances, before - sizes.hidden, reading.params)
        return {"dropped": len(dropped), "of": before} | self._zeroed(dropped)

    def _profile(self, reading: Reading) -> Mapping[str, torch.Tensor]:
        if reading.profile not in self._profiles:
            bench, model = self.bench, self.bench.open()
            asked = Calibration.model_validate(bench.calibration(answers=reading.answers))
            self._profiles[reading.profile] = profiles(
                model,
                calibration_windows(bench.reader, asked)[0].by_task,
                reading.params,
                bench.facts.config.get("bos_token_id"),
                devices.batch_tokens(model.device),
                lambda _index: None,
                lambda: None,
            )
        return self._profiles[reading.profile]

    def _zeroed(self, dropped: torch.Tensor) -> dict[str, Any]:
        model = self.bench.open()
        for outside in (model.model.get_input_embeddings(), model.model.get_output_embeddings()):
            outside.weight.data[:, dropped] = 0

        def prepare(_index: int, block: nn.Module) -> None:
            groups = input_groups(block, model.family, model.config)
            matrices = {matrix.name: matrix for group in groups for matrix in group.matrices}
            zero_residual(matrices, model.family, dropped, readers_only=False)

        return self.bench.figures(model, prepare)


def settle(chosen: argparse.Namespace) -> None:
    """Measure what settles how DIET is to be read, in the order of the specification."""
    bench = Bench(chosen.model, samples=chosen.samples, items=chosen.items, windows=chosen.windows)
    kept = Kept(chosen.results, "structured_diet", bench.name, bench.conditions)
    fill(kept, "dense", bench.dense)
    readings = Readings(bench)
    for ratio in chosen.ratios:
        jobs = OTHER_JOBS | {
            name: job | {"pattern": RESIDUAL[bench.name].model_dump()}
            for name, job in RESIDUAL_JOBS.items()
        }
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            name: lambda reading=reading, ratio=ratio: readings.measure(reading, ratio)
            for name, reading in READINGS.items()
        }
        measures |= {
            name: lambda job=job, ratio=ratio: bench.cell(job | {"sparsity": ratio})
            for name, job in jobs.items()
        }
        for name, measure in measures.items():
            if chosen.only in name:
                fill(kept, f"{name} | {amount(ratio)}", measure)
