"""Hill climb on perplexity over CRePE's coefficients: the baseline that PHO is judged by. The procedure is ours.

Start at RIA. The neighbours of a point: g or b a step up or down, cut at 0 and 1, or the next smaller or larger kernel.
Move to the best neighbour if its perplexity is lower, else halve the step; a step below 0.05 ends the climb.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pruning_core.numerics.input_statistics import Stats
from pruning_core.searches.space import GRID, RIA, Perplexity, Trial
from pruning_core.spec.element_methods import CRePE
from pruning_core.spec.search import HillClimb

FIRST_STEP = 0.25
LAST_STEP = 0.05


@dataclass
class Search:
    """The climb as a job runs it; see `CoefficientSearch`."""

    params: HillClimb
    method: CRePE
    ratio: float
    perplexity: Perplexity

    def see(self, weight: torch.Tensor, stats: Stats) -> None:
        """Look away: perplexity says everything."""

    def find(self, evaluated: Callable[[Trial], None]) -> Trial:
        """Return the candidate of the lowest perplexity."""
        return climb(self.perplexity, self.params, evaluated=evaluated)

    def check(self, ria: Trial, best: Trial) -> tuple[Trial, Trial]:
        """Return both as they are: their values are perplexities."""
        return ria, best


def climb(
    perplexity: Perplexity,
    params: HillClimb,
    *,
    evaluated: Callable[[Trial], None],
) -> Trial:
    """Return the best candidate; no point is tried twice.

    Args:
        perplexity: Of (g, b, kernel).
        params: Budget.
        evaluated: Told of every candidate, RIA first.
    """
    tried: set[tuple[float, float, int]] = set()

    def trials(points: Iterator[tuple[float, float, int]]) -> Iterator[Trial]:
        for point in points:
            if _canonical(*point) in tried or len(tried) == params.evaluations:
                continue
            tried.add(_canonical(*point))
            made = Trial(*point, perplexity(*point))
            evaluated(made)
            yield made

    (best,) = trials(iter([RIA]))
    step = FIRST_STEP
    while step >= LAST_STEP and len(tried) < params.evaluations:
        better = [made for made in trials(_neighbours(best, step)) if made.value < best.value]
        if better:
            best = min(better, key=lambda made: made.value)
        else:
            step /= 2
    return best


def _neighbours(at: Trial, step: float) -> Iterator[tuple[float, float, int]]:
    for change in (step, -step):
        yield _inside(at.g + change), at.b, at.kernel
        yield at.g, _inside(at.b + change), at.kernel
    index = GRID.index(at.kernel)
    for kernel in GRID[max(0, index - 1) : index + 2]:
        yield at.g, at.b, kernel


def _inside(share: float) -> float:
    return min(1.0, max(0.0, share))


def _canonical(g: float, b: float, kernel: int) -> tuple[float, float, int]:
    """Without a neighbourhood term the kernel does not matter; with nothing else, b does not."""
    return g, b if g < 1 else RIA[1], kernel if g > 0 else RIA[2]
