"""`python -m bench.search`: the pilot behind PHO's proxy, PHO, and the perplexity hill climb, on SmolLM2-135M.

The pilot scores a Latin hypercube of 24 points by perplexity on search text and by every candidate for a proxy, and ranks the proxies by Spearman's correlation. PHO and the hill climb share text, statistics and the way a
candidate's perplexity is measured. Search text comes from the `wikitext2` task's calibration split (never its other
one) of the folder that SECATEUR_TASKS_DIR names.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from scipy.stats import qmc, spearmanr

from bench.gini import Part, part_gini
from bench.model import smollm2
from pruning_core import settings
from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.decide.search import CandidateEvaluator, search
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.searches.pho import Proxy
from pruning_core.searches.space import RIA, kernel_at
from pruning_core.selection.masks import Selector
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.element_methods import CRePE
from pruning_core.spec.patterns import MatrixWide, removed_count
from pruning_core.spec.search import HillClimb, Pho, Search
from pruning_core.system import device as devices
from pruning_core.system.progress import Silent, Tracker
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.text.task_reader import TaskReader

RESULTS = Path("docs/search.json")
SEARCH_WINDOWS = 8
PARTS: tuple[Part, ...] = get_args(Part)
POINTS = 24
SEARCHES: dict[str, Search] = {
    "pho": Pho(windows=SEARCH_WINDOWS),
    "hill_climb": HillClimb(windows=SEARCH_WINDOWS),
}


class Bench:
    """The model, calibration windows and search text that all three share."""

    def __init__(self, folder: Path, windows: int, ratio: float) -> None:
        self.model = StreamedModel(folder, inspect(folder), devices.pick())
        reader = TaskReader(folder, inspect(folder), DataUsed(settings.tasks_dir()))
        asked = {"tasks": [{"name": "wikitext2", "samples": windows}], "seq_len": 512}
        calibration = Calibration.model_validate(asked)
        self.windows, self.text = calibration_windows(reader, calibration, held_out=SEARCH_WINDOWS)
        self.ratio = ratio

    def evaluator(self) -> CandidateEvaluator:
        select = Selector(self.ratio, MatrixWide())
        return CandidateEvaluator(self.model, CRePE(), select, self.text, Tracker(Silent()))

    def states(self) -> Activations:
        return Activations(self.model, self.windows.groups)

    def pilot(self) -> dict[str, Any]:
        """Return every point's perplexity and proxies, and what correlates."""
        proxy = Proxy(CRePE(), self.ratio, seed=0)
        candidates = self.evaluator()
        candidates.observe(self.states(), proxy.observe, lambda _index: None)
        points = []
        for g, b, kernel in [RIA, *pilot_points()]:
            figures = proxies(proxy, self.ratio, (g, b, kernel))
            perplexity = candidates.perplexity(g, b, kernel)
            points.append({"g": g, "b": b, "kernel": kernel, "perplexity": perplexity, **figures})
            print(points[-1], flush=True)
        values = [point["perplexity"] for point in points[1:]]
        ranks = {
            name: float(spearmanr([point[name] for point in points[1:]], values).statistic)
            for name in ("energy", *PARTS)
        }
        return {"points": points, "spearman": ranks}

    def search(self, name: str) -> dict[str, Any]:
        """Return the report of a search, its CPU seconds and the perplexity of what it found."""
        cpu = time.process_time()
        report = search(SEARCHES[name], self.evaluator(), self.states())
        return {"cpu_seconds": time.process_time() - cpu, **report.model_dump(mode="json")}


def pilot_points(count: int = POINTS, seed: int = 0) -> list[tuple[float, float, int]]:
    """Return points (g, b, kernel) that fill the space evenly: a Latin hypercube."""
    points = qmc.LatinHypercube(d=3, rng=seed).random(count)
    return [(float(g), float(b), kernel_at(t)) for g, b, t in points]


def proxies(proxy: Proxy, ratio: float, point: tuple[float, float, int]) -> dict[str, float]:
    """Return the energy that is lost, and the mean Gini index of every part of the scores."""
    figures = {"energy": proxy.objective(*point)}
    for part in PARTS:
        indices = [
            part_gini(np.sort(scores), removed_count(ratio, len(scores)), part)
            for scores, _ in proxy.scores(*point)
        ]
        figures[part] = sum(indices) / len(indices)
    return figures


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("pilot", "pho", "hill_climb"))
    parser.add_argument("--windows", type=int, default=32, help="calibration windows of 512 tokens")
    parser.add_argument("--sparsity", type=float, default=0.5)
    chosen = parser.parse_args()
    bench = Bench(smollm2(), chosen.windows, chosen.sparsity)
    started = time.perf_counter()
    outcome = bench.pilot() if chosen.what == "pilot" else bench.search(chosen.what)
    outcome["wall_seconds"] = time.perf_counter() - started
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(f"{chosen.sparsity}", {})[chosen.what] = outcome
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: outcome[key] for key in outcome if key not in ("points", "trials")}))


if __name__ == "__main__":
    main()
