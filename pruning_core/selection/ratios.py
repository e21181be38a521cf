"""Arithmetic of ratios per block: a bounded shift to an exact mean, and exact counts per matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from pruning_core.spec.composition import LARGEST_RATIO
from pruning_core.spec.patterns import removed_count

BISECTIONS = 100
"""Of an interval of width about 1: far below what float64 resolves."""


def bounded(
    ratios: Sequence[float],
    weights: Sequence[float],
    target: float,
    most: float = LARGEST_RATIO,
) -> list[float]:
    """Shift the ratios by one constant and clip them to [0, most], so that their weighted mean is the target.

    Args:
        ratios: One per part, of any level: only their differences count.
        weights: Sizes of the parts, positive.
        target: The mean wanted, in [0, most].
        most: Upper bound.

    Raises:
        ValueError: no shift reaches the target.
    """
    if not 0 <= target <= most:
        raise ValueError(f"a mean of {target} lies outside 0 to {most}")
    low, high = -max(ratios), most - min(ratios)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if weighted_mean(_clipped(ratios, middle, most), weights) < target:
            low = middle
        else:
            high = middle
    return _clipped(ratios, high, most)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the mean of the values, weighted."""
    return math.fsum(map(mul, values, weights)) / math.fsum(weights)


def removed_counts(
    ratios: Sequence[float], sizes: Sequence[Sequence[int]], ratio: float
) -> list[list[int]]:
    """Return how many weights each matrix loses; together exactly floor(ratio x all weights).

    The ratios are first shifted by one constant so that they reach that total, by next to nothing if they came from
    `bounded`. Every count is then the floor of its share or one more: the largest remainders are rounded up.

    Args:
        ratios: One per block.
        sizes: Number of weights of each block's matrices.
        ratio: Share of all weights that goes.
    """
    flat = [size for block in sizes for size in block]
    total = removed_count(ratio, sum(flat))
    exact = bounded(ratios, [sum(block) for block in sizes], total / sum(flat), most=1.0)
    shares = [
        block_ratio * size
        for block_ratio, block in zip(exact, sizes, strict=True)
        for size in block
    ]
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(len(flat)), key=lambda index: counts[index] - shares[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    following = iter(counts)
    return [[next(following) for _ in block] for block in sizes]


def _clipped(ratios: Sequence[float], shift: float, most: float) -> list[float]:
    return [min(most, max(0.0, ratio + shift)) for ratio in ratios]
