"""Scalings of positions that GGUF files carry, and how far two models answer apart."""

from __future__ import annotations

from typing import Any

import torch

IDS = torch.arange(3, 120)[None]
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}


def difference(model: Any, other: Any) -> float:
    with torch.no_grad():
        return float((model(IDS).logits - other(IDS).logits).abs().max())
