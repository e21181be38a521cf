"""Llama 3's scaled rotary positions, recovered from the factors that GGUF keeps of them.

Llama 3.1 divides the frequency of a pair of wavelength w by `factor` where w > original / low, leaves it where
w < original / high, and between them divides by f with 1/f = (1 - s)/factor + s, s = (original/w - low)/(high - low).
So s is a line in 1/w: s = slope/w - shift with slope = original/(high - low), shift = low/(high - low). GGUF holds f
for each pair alone (`rope_freqs.weight`); any numbers with the same f at these wavelengths are the same model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

ORIGINAL = 8192
"""Length that Llama 3 was trained on before it was stretched; only its ratios to `low` and `high` matter."""
SHIFT = 1 / 3
"""Of low 1 and high 4, Llama 3's own."""
TOLERANCE = 2e-5
"""Relative: factors are float32, and steps between them are differences of those."""


def wavelengths(theta: float, width: int) -> list[float]:
    """Return the positions per turn of every rotated pair of a head, shortest first."""
    return [2 * math.pi * theta ** (place / width) for place in range(0, width, 2)]


def factors_of(parameters: dict[str, Any], theta: float, width: int) -> list[float]:
    """Return by what these `rope_parameters` divide the frequency of each pair."""
    factor, original = parameters["factor"], parameters["original_max_position_embeddings"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    factors = []
    for length in wavelengths(theta, width):
        share = (original / length - low) / (high - low)
        middle = 1 / ((1 - share) / factor + share) if 0 <= share <= 1 else 1.0
        factors.append(factor if length > original / low else middle)
    return factors


def recover(factors: Sequence[float], theta: float, width: int) -> dict[str, Any] | None:
    """Return `rope_parameters` of the type `llama3`, `linear` or `default` with these factors; None if there are none.

    Args:
        factors: For every rotated pair of a head.
        theta: Base of the frequencies.
        width: Rotated channels of a head.
    """
    if len(factors) != width // 2 or not all(0 < factor < math.inf for factor in factors):
        return None
    largest = max(factors)
    if largest - min(factors) <= TOLERANCE * largest:
        plain = abs(largest - 1) <= TOLERANCE
        return {"rope_type": "default"} if plain else {"rope_type": "linear", "factor": largest}
    for line in _lines(factors, wavelengths(theta, width), largest):
        for parameters in _parameters(largest, *line):
            again = zip(factors, factors_of(parameters, theta, width), strict=True)
            if all(math.isclose(factor, other, rel_tol=TOLERANCE) for factor, other in again):
                return parameters
    return None


def _lines(
    factors: Sequence[float], lengths: Sequence[float], largest: float
) -> list[tuple[float, float]]:
    """Return (shift, slope) of the lines that s may lie on, Llama 3's own first."""
    shares = [(1 / factor - 1 / largest) / (1 - 1 / largest) for factor in factors]
    inner = [
        (1 / length, share)
        for length, share in zip(lengths, shares, strict=True)
        if TOLERANCE < share < 1 - TOLERANCE
    ]
    if len(inner) > 1:
        (x, y), (other_x, other_y) = inner[0], inner[-1]
        slope = (y - other_y) / (x - other_x)
        return [(slope * x - y, slope)]
    # the longest wave that is left alone and the shortest that is divided by the whole factor
    short = max((w for w, s in zip(lengths, shares, strict=True) if s >= 1 - TOLERANCE), default=0)
    long = min((w for w, s in zip(lengths, shares, strict=True) if s <= TOLERANCE))
    if inner:
        x, y = inner[0]
        shifts = (SHIFT, *(step / 64 for step in range(1, 640)))
        return [(shift, (shift + y) / x) for shift in shifts]
    low = short + (long - short) * 2 / 3
    high = short + (long - short) / 3
    return [(1 / (low / high - 1), 1 / (1 / high - 1 / low))]


def _parameters(factor: float, shift: float, slope: float) -> Iterator[dict[str, Any]]:
    """Yield the parameters of one line: with `low` 1 and the original length rounded, then without rounding."""
    if shift <= 0 or slope <= 0:
        return
    original = slope / shift
    for low, length in ((1.0, max(1, round(original))), (ORIGINAL / original, ORIGINAL)):
        yield {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": low * (1 + 1 / shift),
            "original_max_position_embeddings": length,
        }
