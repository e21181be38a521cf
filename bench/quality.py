"""`make benchmarks`: perplexity on held-out text for every method and pattern, kept cell by cell, written as a page.

Results are kept in docs/benchmarks.json as they come; a second run does what is missing. The evaluation text is the
`wikitext2` task of the folder that SECATEUR_TASKS_DIR names; calibration windows come from its other split, or from
the `tokens` of an .npz file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.model import smollm2
from bench.page import write
from pruning_core import settings
from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.evaluate.perplexity import perplexity
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.phases import prune
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.evaluation import Evaluation
from pruning_core.spec.prune import PruneSpec
from pruning_core.system import device as devices
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.text.evaluation_text import evaluation_windows
from pruning_core.text.task_reader import TaskReader

RESULTS = Path("docs/benchmarks.json")
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "Wanda": {"method": "wanda"},
    "RIA": {"method": "ria"},
    "RIA, per row": {"method": "ria", "pattern": {"name": "row"}},
    "CRePE": {"method": {"name": "crepe", "preset": "smollm2-135m"}},
    "SparseGPT": {"method": "sparsegpt"},
    "ALPS": {"method": "alps"},
    "ALPS, gradual": {"method": {"name": "alps", "schedule": "gradual"}},
    "Wanda + DSnoT": {"method": "wanda", "refinement": [{"name": "dsnot", "targets": "all"}]},
    "Wanda + polish": {"method": "wanda", "refinement": ["polish"]},
}
AMOUNTS: dict[str, dict[str, Any]] = {
    "50 %": {"sparsity": 0.5},
    "60 %": {"sparsity": 0.6},
    "70 %": {"sparsity": 0.7},
    "2:4": {"pattern": {"name": "n:m", "n": 2, "m": 4}},
    "4:8": {"pattern": {"name": "n:m", "n": 4, "m": 8}},
}
AUTHORS = ("magnitude", "Wanda", "RIA", "SparseGPT", "ALPS")
EXTRAS: dict[str, dict[str, Any]] = {
    "RIA 50 %": {"method": "ria", "sparsity": 0.5},
    "CRePE 50 %, PHO's coefficients": {
        "method": {
            "name": "crepe",
            "alpha": 1.3588,
            "beta": 0.6412,
        },
        "sparsity": 0.5,
    },
    "Wanda, uniform": {"method": "wanda", "sparsity": 0.7},
    "Wanda, OWL": {"method": "wanda", "sparsity": 0.7, "allocation": "owl"},
    "Wanda, AlphaPruning": {"method": "wanda", "sparsity": 0.7, "allocation": "alphapruning"},
    "Wanda, ramp": {"method": "wanda", "sparsity": 0.7, "allocation": "ramp"},
    "Wanda 2:4, permute fold": {
        "method": "wanda",
        "pattern": {"name": "n:m", "n": 2, "m": 4, "permute": "fold"},
    },
    "Wanda 2:4, permute mask": {
        "method": "wanda",
        "pattern": {"name": "n:m", "n": 2, "m": 4, "permute": "mask"},
    },
    "Wanda 60 %, reconstruction": {
        "method": "wanda",
        "sparsity": 0.6,
        "reconstruction": {"learning_rate": 1e-4, "epochs": 2},
    },
}


class Bench:
    """One model on one text."""

    def __init__(self, folder: Path, tokens: torch.Tensor, text: torch.Tensor) -> None:
        self.folder = folder
        self.tokens = tokens
        self.text = text

    def cell(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Prune as a job does, evaluate the checkpoint that it would hand out, and say what it cost."""
        spec = PruneSpec.model_validate(asked | {"evaluation": {"tasks": []}})
        tokens = self.tokens if spec.needs_calibration else None
        with tempfile.TemporaryDirectory() as out:
            started = time.process_time()
            report = prune(self.folder, spec, Path(out), tokens=tokens)
            seconds = time.process_time() - started
            figure = self.perplexity(Path(out) / "checkpoint")
        matrices = [matrix for block in report.blocks for matrix in block.matrices]
        errors = [matrix.error for matrix in matrices if matrix.error is not None]
        return {
            "perplexity": round(figure, 3),
            "sparsity": round(report.sparsity, 5),
            "cpu_seconds": round(seconds, 1),
            "mean_error": round(sum(errors) / len(errors), 4) if errors else None,
        }

    def perplexity(self, folder: Path) -> float:
        """Return a model's perplexity on the text."""
        model = StreamedModel(folder, inspect(folder), devices.pick())
        return perplexity(model, self.text)


def cells(which: str) -> dict[str, dict[str, Any]]:
    """Return the specifications of a table by the key of their cell."""
    if which == "authors":
        return {f"{name} | 50 %": METHODS[name] | AMOUNTS["50 %"] for name in AUTHORS}
    if which == "extras":
        return dict(EXTRAS)
    specifications = {}
    for amount, how_much in AMOUNTS.items():
        for name, method in METHODS.items():
            if "pattern" not in method or "pattern" not in how_much:
                specifications[f"{name} | {amount}"] = method | how_much
    return specifications


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("methods", "authors", "extras", "page"))
    parser.add_argument("--tokens", type=Path, help=".npz with `tokens` [windows, 512]")
    parser.add_argument("--windows", type=int, default=32, help="calibration windows")
    parser.add_argument("--evaluation", type=int, default=4, help="windows of 2,048 tokens")
    parser.add_argument("--only", default="", help="cells whose key holds this")
    parser.add_argument("--skip", default="\0", help="but not those whose key holds this")
    chosen = parser.parse_args()
    if chosen.table == "page":
        write()
        return
    folder = smollm2()
    reader = TaskReader(folder, inspect(folder), DataUsed(settings.tasks_dir()))
    if chosen.tokens:
        tokens = torch.from_numpy(np.load(chosen.tokens)["tokens"]).long()[: chosen.windows]
    else:
        asked = {"tasks": [{"name": "wikitext2", "samples": chosen.windows}], "seq_len": 512}
        tokens = calibration_windows(reader, Calibration.model_validate(asked))[0].groups[0]
    asked_text = Evaluation(windows=chosen.evaluation, seq_len=2048)
    (text,) = evaluation_windows(reader, "wikitext2", asked_text).groups
    run(Bench(folder, tokens, text), chosen.table, chosen.only, chosen.skip)


def run(bench: Bench, table: str, only: str, skip: str) -> None:
    """Fill in what the table lacks."""
    conditions = f"{len(bench.tokens)} x {bench.tokens.shape[1]} / {len(bench.text)} x 2048"
    missing = {key: asked for key, asked in cells(table).items() if only in key and skip not in key}
    for key, asked in {"dense": None, **missing}.items():
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept = results.setdefault(table, {}).setdefault(conditions, {})
        if key in kept:
            continue
        cell = (
            {"perplexity": round(bench.perplexity(bench.folder), 3)}
            if asked is None
            else bench.cell(asked)
        )
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results.setdefault(table, {}).setdefault(conditions, {})[key] = cell
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(key, cell, flush=True)


if __name__ == "__main__":
    main()
