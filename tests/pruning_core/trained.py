"""A tiny model that has learnt to count, and how well it still does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import tiny


def train(folder: Path, *, steps: int = 60, weight_decay: float = 0.01, **changes: Any) -> Path:
    """Save a tiny Llama for which the next token is the last one plus one."""
    tiny.save(folder, "llama", seed=5, **changes)
    model = tiny.build("llama", seed=5, **changes).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=weight_decay)
    for step in range(steps):
        ids = counting(32, 24, seed=step)
        loss = model(ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval().save_pretrained(folder)
    return folder


def counting(windows: int, seq: int, seed: int) -> torch.Tensor:
    start = torch.randint(3, 200, (windows, 1), generator=torch.Generator().manual_seed(seed))
    return (start + torch.arange(seq)) % (tiny.VOCAB - 3) + 3


def loss_after(folder: Path, keep_of: Any) -> float:
    """Return the loss on fresh counting windows with every matrix of every block masked by `keep_of(weight)`."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    if keep_of is not None:
        for name, parameter in model.named_parameters():
            if "_proj" in name:
                parameter.data *= keep_of(parameter.data)
    with torch.no_grad():
        ids = counting(64, 24, seed=999)
        return float(model(ids, labels=ids).loss)
