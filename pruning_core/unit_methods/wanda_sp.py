"""Wanda-sp: Wanda's score summed over what a unit feeds into its read-out; a baseline of arXiv 2312.11983.

q_j     = mean of x_j squared, x the read-out's input
S_j     = sqrt(q_j) * mean over rows of |W_ij|
neuron  = S_j;   key-value group = sum of S_j over its channels;   the lowest go

Departures: counts are exact, and heads that share a key-value head go together.
"""

from __future__ import annotations

import torch

from pruning_core.spec.unit_methods import WandaSp
from pruning_core.units.candidates import Candidates

NEEDS = ("column_mean_square",)
INPUT_NEEDS: tuple[str, ...] = ()


def score(group: Candidates, params: WandaSp) -> torch.Tensor:
    """Return the importance of every unit, [size]."""
    channels = group.at_readout.root_mean_square * group.readout.abs().mean(dim=0)
    return group.per_unit(channels).sum(dim=1)
