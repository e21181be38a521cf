"""Units at random, each group by a seed of its own: the control.

score = uniform random numbers;   the lowest go
"""

from __future__ import annotations

import torch

from pruning_core.model.candidates import Candidates
from pruning_core.spec.unit_methods import RandomUnits

NEEDS: tuple[str, ...] = ()
INPUT_NEEDS: tuple[str, ...] = ()


def score(group: Candidates, params: RandomUnits) -> torch.Tensor:
    """Return a random importance of every unit, [size]."""
    return shuffled(group.size, params, group.seed).to(group.readout.device)


def shuffled(size: int, params: RandomUnits, number: int) -> torch.Tensor:
    """Return random numbers, float32 [size], for one of several groups."""
    generator = torch.Generator().manual_seed(params.seed * 1_000_003 + number)
    return torch.rand(size, generator=generator)
