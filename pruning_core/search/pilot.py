"""The points of the pilot, whose perplexities decide which scores PHO's proxy reads, and its sign."""

from __future__ import annotations

from scipy.stats import qmc

from pruning_core.search.space import kernel_at


def pilot_points(count: int = 24, seed: int = 0) -> list[tuple[float, float, int]]:
    """Return points (g, b, kernel) that fill the space evenly: a Latin hypercube."""
    points = qmc.LatinHypercube(d=3, rng=seed).random(count)
    return [(float(g), float(b), kernel_at(t)) for g, b, t in points]
