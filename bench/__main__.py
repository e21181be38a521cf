"""`make bench`: what pruning costs, over one plain forward pass of the same tokens, and beside llm-compressor.

Every figure is a ratio within one process, so that a slow moment of the machine meets both sides; CPU seconds decide.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import peers
from bench.model import smollm2
from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.spec.calibration import Calibration
from pruning_core.system import device as devices
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.text.task_reader import TaskReader

TEXT = {"tasks": [{"name": "python_docs", "samples": 32}], "seq_len": 512}
SPECS: dict[str, dict[str, Any]] = {
    "Wanda": {"method": "wanda"},
    "RIA": {"method": "ria"},
    "CRePE": {"method": {"name": "crepe", "alpha": 0.8, "beta": 0.8, "gamma": 0.4, "kernel": 7}},
    "SparseGPT": {"method": "sparsegpt"},
    "ALPS": {"method": "alps"},
    "ALPS, gradual": {"method": {"name": "alps", "schedule": "gradual"}},
    "Wanda + DSnoT": {"method": "wanda", "refinement": ["dsnot"]},
    "Wanda + polish": {"method": "wanda", "refinement": ["polish"]},
}
PEERS = {"Wanda": "wanda", "SparseGPT": "sparsegpt"}


@dataclass(frozen=True)
class Cost:
    """CPU and wall seconds of pruning and of a plain forward pass, per round, and peak bytes."""

    prune: list[list[float]]
    forward: list[list[float]]
    peak: dict[str, int]
    idle: dict[str, int]

    def over_forward(self, clock: int) -> list[float]:
        """Return the rounds' ratios, ascending; clock 0 counts CPU seconds, 1 wall."""
        pairs = zip(self.prune, self.forward, strict=True)
        return sorted(prune[clock] / plain[clock] for prune, plain in pairs)

    def seconds(self, clock: int) -> float:
        """Return the median of the rounds."""
        return statistics.median(prune[clock] for prune in self.prune)


def measure(spec: dict[str, Any], folder: Path, tokens: Path, rounds: int) -> Cost:
    """Prune in a fresh process."""
    asked = json.dumps(spec | {"sparsity": 0.5})
    arguments = (asked, str(folder), str(tokens), f"--rounds={rounds}")
    command = [sys.executable, "-W", "ignore", "-m", "bench.speed", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="methods whose name holds this")
    parser.add_argument(
        "--no-peers", action="store_true", help="do not install or run llm-compressor"
    )
    chosen = parser.parse_args()
    console, folder = Console(), smollm2()
    facts = inspect(folder)
    (windows,) = calibration_windows(
        TaskReader(folder, facts, DataUsed()), Calibration.model_validate(TEXT)
    )[0].groups
    with tempfile.TemporaryDirectory() as temporary:
        tokens = Path(temporary) / "tokens.npy"
        np.save(tokens, windows.numpy())
        costs = {
            name: measure(spec, folder, tokens, chosen.rounds)
            for name, spec in SPECS.items()
            if chosen.only in name
        }
        console.print(_table(costs, facts.bytes))
        if not chosen.no_peers:
            theirs = {name: PEERS[name] for name in costs if name in PEERS}
            peer_results = {
                name: peers.measure(peer, folder, tokens) for name, peer in theirs.items()
            }
            console.print(_comparison(costs, peer_results))
    console.print(f"SmolLM2-135M, {windows.shape[0]} x {windows.shape[1]} tokens, 50 %.")
    console.print(devices.describe(devices.pick()))


def _table(costs: dict[str, Cost], size: int) -> Table:
    table = Table(title="Pruning over one plain forward pass through the blocks; median (range)")
    for column in ("method", "CPU seconds", "wall seconds", "peak memory over model size"):
        table.add_column(column)
    for name, cost in costs.items():
        cpu, wall = (_median(cost.over_forward(clock)) for clock in (0, 1))
        peak, idle = cost.peak["host"], cost.idle["host"]
        memory = f"{peak / size:.2f} ({peak >> 20} MiB, {idle >> 20} before the model)"
        table.add_row(name, cpu, wall, memory)
    return table


def _comparison(costs: dict[str, Cost], peer_results: dict[str, peers.PeerResult]) -> Table:
    table = Table(title="llm-compressor over Secateur, same tokens, model and machine")
    for column in (
        "method",
        "CPU seconds",
        "wall seconds",
        "over their forward pass",
        "peak memory",
    ):
        table.add_column(column)
    for name, theirs in peer_results.items():
        ours = costs[name]
        table.add_row(
            name,
            f"{theirs.cpu_seconds / ours.seconds(0):.2f}",
            f"{theirs.wall_seconds / ours.seconds(1):.2f}",
            f"{theirs.cpu_seconds / theirs.forward_cpu_seconds:.2f}",
            f"{theirs.peak_bytes / ours.peak['host']:.2f}",
        )
    return table


def _median(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
