"""Tokens per second of every shape that the table of methods holds."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench.page import shape_key
from bench.structured.cells import Kept, read
from bench.structured.measuring import MODELS
from pruning_core.evaluate.throughput import throughput
from pruning_core.system import device as devices

PROMPT_TOKENS = 512
NEW_TOKENS = 32
PHASES = ("prefill", "decode")


def speed(chosen: argparse.Namespace) -> None:
    """Measure tokens per second of every shape that the table holds, the dense model's in turn with it."""
    folder = MODELS[chosen.model]().resolve()
    device = devices.pick()
    conditions = f"{PROMPT_TOKENS} + {NEW_TOKENS} tokens, {devices.describe(device)}"
    kept = Kept(chosen.results, "structured_speed", chosen.model, conditions)
    tables = read(chosen.results).get("structured", {}).get(chosen.model, {})
    cells = [cell for table in tables.values() for cell in table.values() if "config" in cell]
    shapes = {shape_key(cell): cell["config"] for cell in cells}
    dense = _random_model(folder, {}, device)
    for key, changes in shapes.items():
        if chosen.only in key and key not in kept:
            cut = _random_model(folder, changes, device)
            kept.keep(key, _compared(dense, cut, chosen.rounds))


def _random_model(folder: Path, changes: Mapping[str, Any], device: torch.device) -> Any:
    """Return a stock model of a shape; its weights decide nothing here."""
    config = AutoConfig.from_pretrained(folder, **changes)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().to(device)


def _compared(dense: Any, cut: Any, rounds: int) -> dict[str, Any]:
    prompt = torch.arange(PROMPT_TOKENS, device=dense.device)[None]
    both: list[list[dict[str, float]]] = [[], []]
    for _ in range(rounds):
        for model, series in zip((dense, cut), both, strict=True):
            series.append(throughput(model, prompt, new_tokens=NEW_TOKENS, repeats=1))
    return {
        phase: _speed_up(
            [figures[phase] for figures in both[0]],
            [figures[phase] for figures in both[1]],
            1 - operations(cut, phase) / operations(dense, phase),
        )
        for phase in PHASES
    }


def _speed_up(dense: list[float], cut: list[float], removed: float) -> dict[str, Any]:
    """Compare tokens per second with what the operations that went allow."""
    ratios = [after / before for before, after in zip(dense, cut, strict=True)]
    measured, allowed = statistics.median(cut) / statistics.median(dense), 1 / (1 - removed)
    gain = (measured - 1) / (allowed - 1) if allowed > 1 else None
    figures = {
        "dense": statistics.median(dense),
        "cut": statistics.median(cut),
        "speed_up": measured,
        "slowest_round": min(ratios),
        "fastest_round": max(ratios),
        "operations_removed": removed,
        "allowed": allowed,
        "of_allowed": measured / allowed,
        "gain_of_allowed": gain,
    }
    return {name: figure and round(figure, 4) for name, figure in figures.items()}


def operations(model: Any, phase: str) -> float:
    """Return multiply-adds per token: matrices of blocks, attention's own products, head; no look-ups.

    Reading a prompt computes the head for its last token alone.
    """
    blocks = sum(
        parameter.numel()
        for parameter in model.base_model.layers.parameters()
        if parameter.ndim == 2
    )
    config, head = model.config, model.get_output_embeddings().weight.numel()
    heads, width = config.num_attention_heads, config.head_dim
    if phase == "prefill":
        seen, head = (PROMPT_TOKENS + 1) / 2, head / PROMPT_TOKENS
    else:
        seen = PROMPT_TOKENS + (NEW_TOKENS + 1) / 2
    products = 2 * heads * width * seen * config.num_hidden_layers
    return float(blocks + products + head)
