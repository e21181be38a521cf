"""Quality and cost of every method at every ratio."""

from __future__ import annotations

import argparse
from typing import Any

from bench.structured.cells import Kept, amount, fill
from bench.structured.measuring import RESIDUAL, Bench

ROWS: dict[str, dict[str, Any]] = {
    "random_units": {"method": "random_units"},
    "layer_drop": {"method": "layer_drop"},
    "wanda_sp": {"method": "wanda_sp"},
    "wanda_sp + refit": {"method": "wanda_sp", "refinement": ["refit"]},
    "flap": {"method": "flap"},
    "flap + refit": {"method": "flap", "refinement": ["refit"]},
    "goa": {"method": "goa"},
    "goa, reconstruct": {"method": {"name": "goa", "reconstruct": True}},
    "goa + refit": {"method": "goa", "refinement": ["refit"]},
    "diet": {"method": "diet"},
}


def table(chosen: argparse.Namespace) -> None:
    """Measure every method at every ratio."""
    bench = Bench(chosen.model, samples=chosen.samples, items=chosen.items, windows=chosen.windows)
    kept = Kept(chosen.results, "structured", bench.name, bench.conditions)
    fill(kept, "dense", bench.dense)
    for ratio in chosen.ratios:
        for row, asked in ROWS.items():
            if chosen.only in row:
                spec = asked | {"sparsity": ratio}
                if row.startswith("diet"):
                    spec |= {"pattern": RESIDUAL[bench.name].model_dump()}
                fill(kept, f"{row} | {amount(ratio)}", lambda spec=spec: bench.cell(spec))
