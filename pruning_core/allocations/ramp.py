"""Linear depth ramp, after Huang, Zhang, Zheng, Chao, Ji, arXiv 2502.14770: the ratio rises with depth.

ratio_l = s + delta * (2 l / (L - 1) - 1),  l = 0 .. L - 1,  then shifted and clipped to a weighted mean of exactly s

The paper's idea is an arithmetic progression with one free number. Departure: delta is given, not searched by trials.
"""

from __future__ import annotations

from collections.abc import Sequence

from pruning_core.selection.ratios import bounded
from pruning_core.spec.composition import DepthRamp

NEEDS: tuple[str, ...] = ()


def ratios(
    measured: Sequence[float], weights: Sequence[int], ratio: float, params: DepthRamp
) -> list[float]:
    """Return the ratio of every block.

    Args:
        measured: Nothing.
        weights: Prunable weights of each block.
        ratio: s.
        params: Parameters.
    """
    blocks = len(weights)
    middle = (blocks - 1) / 2
    slope = params.delta / middle if middle else 0.0
    return bounded([slope * (block - middle) for block in range(blocks)], weights, ratio)
