"""Methods that remove whole units: quality, speed and cost of each, and what settles how DIET's paper is to be read.

Figures are kept cell by cell in docs/benchmarks.json; a second run does what is missing, and several may write at once.
All tasks are those of the folder that SECATEUR_TASKS_DIR names.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.page import RESULTS, write
from bench.structured.cost import COST_TOKENS, cost
from bench.structured.diet_readings import settle
from bench.structured.measuring import MODELS, TEXT_TOKENS
from bench.structured.methods import table
from bench.structured.speed import speed


def _ratios(text: str) -> list[float]:
    return [float(ratio) for ratio in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, action, items, windows in (("table", table, 100, 8), ("diet", settle, 50, 4)):
        command = _command(commands, name, action)
        command.add_argument("--items", type=int, default=items, help="per task")
        command.add_argument(
            "--windows", type=int, default=windows, help=f"of {TEXT_TOKENS} tokens"
        )
        command.add_argument("--samples", type=int, default=100, help="per task, to calibrate")
        command.add_argument("--ratios", type=_ratios, default=[0.1, 0.2, 0.3])
    command = _command(commands, "speed", speed)
    command.add_argument("--rounds", type=int, default=5)
    command = _command(commands, "cost", cost)
    command.add_argument("--rounds", type=int, default=1)
    command.add_argument("--windows", type=int, default=128, help=f"of {COST_TOKENS} tokens")
    command.add_argument("--tokens", type=Path, help=".npz with `tokens` [windows, seq]")
    commands.add_parser("page").set_defaults(action=lambda _chosen: write())
    return parser


def _command(
    commands: Any, name: str, action: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=action.__doc__)
    parser.set_defaults(action=action)
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="cells whose key holds this")
    return parser


@torch.no_grad()
def main() -> None:
    chosen = _parser().parse_args()
    chosen.action(chosen)


if __name__ == "__main__":
    main()
