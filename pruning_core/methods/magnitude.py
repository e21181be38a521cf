"""Magnitude pruning, the classic baseline (layer-wise form as in arXiv 2301.00774 and 2306.11695).

score = |W|

No calibration data. Scope: the whole matrix, as published. Departure: counts are exact.
"""

from __future__ import annotations

import torch

from pruning_core.engine.patterns import Selector
from pruning_core.engine.stats import Stats
from pruning_core.spec.methods import Magnitude

NEEDS: tuple[str, ...] = ()


def prune(
    weight: torch.Tensor, stats: Stats, select: Selector, params: Magnitude
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight [out, in] with its smallest entries zeroed, and the mask of what stays."""
    keep = select.keep(weight.abs())
    return weight * keep, keep
