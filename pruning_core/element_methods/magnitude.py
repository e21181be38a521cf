"""Magnitude pruning, the classic baseline (layer-wise form as in arXiv 2301.00774 and 2306.11695).

score = |W|

No calibration data. Scope: the whole matrix, as published. Departure: counts are exact.
"""

from __future__ import annotations

import torch

from pruning_core.numerics.input_statistics import Stats
from pruning_core.spec.element_methods import Magnitude

NEEDS: tuple[str, ...] = ()


def score(weight: torch.Tensor, stats: Stats, params: Magnitude) -> torch.Tensor:
    """Return the importance of every weight, [out, in]."""
    return weight.abs()
