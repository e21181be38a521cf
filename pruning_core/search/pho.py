"""PHO, a reconstruction after Park, arXiv 2606.01544: CRePE's coefficients without perplexity in the loop.

objective(g, b, kernel) = SIGN * mean over matrices of the Gini index of PART of the dense model's scores
minimised by CMA-ES over (g, b, t) in [0, 1]^3, kernel = GRID[round(t (len - 1))], start (0.25, 0.5, 0), sigma 0.25

Known of the paper: a Gini index of scores stands for perplexity, and CMA-ES searches. Which scores, the sign, the
coordinates and the settings of CMA-ES are ours.
A matrix is judged by a sample of its positions; the lowest of the sample go, as many as the ratio says, whatever the
pattern.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from typing import Final

import cmaes
import numpy as np
import torch

from pruning_core.engine.stats import Stats
from pruning_core.errors import NumericalFailure
from pruning_core.methods.crepe import neighbourhood
from pruning_core.methods.ria import activation, relative_importance
from pruning_core.search.gini import Part, Scores, part_gini
from pruning_core.search.space import GRID, RIA, Trial, coefficients, kernel_at
from pruning_core.spec.methods import CRePE
from pruning_core.spec.patterns import removed_count
from pruning_core.spec.search import Pho

PART: Final[Part] = "kept"
SIGN: Final = 1
START: Final = (0.25, 0.5, 0.0)
SIGMA: Final = 0.25


class Proxy:
    """The terms of CRePE's score at sampled positions of every matrix; 36 bytes per position."""

    def __init__(self, params: CRePE, ratio: float, *, seed: int, positions: int = 1 << 14) -> None:
        """Start with no matrix.

        Args:
            params: The exponent and the form of the neighbourhood term.
            ratio: Share of weights removed.
            seed: Of the samples; matrices of one shape are sampled at the same positions.
            positions: Size of a sample; a matrix with fewer weights counts whole.
        """
        self._params = params
        self._ratio = ratio
        self._seed = seed
        self._positions = positions
        self._terms: list[Scores] = []

    def observe(self, weight: torch.Tensor, stats: Stats) -> None:
        """Add a matrix.

        Args:
            weight: [out, in] float32, dense.
            stats: Of its input, with `column_mean_square`.
        """
        index = self._sample(weight.shape).to(weight.device)
        scale = activation(stats, self._params.exponent)[index % weight.shape[1]]
        near = (neighbourhood(weight, kernel, self._params.neighbour) for kernel in GRID)
        sampled = [term.take(index) for term in chain(relative_importance(weight), near)]
        self._terms.append((torch.stack(sampled) * scale).cpu().numpy())

    def gini(self, g: float, b: float, kernel: int, part: Part = PART) -> float:
        """Return the mean over matrices of the Gini index of a part of their scores.

        Args:
            g: Share of the neighbourhood term.
            b: Share of the row term in the rest.
            kernel: Side of the neighbourhood, one of the grid's.
            part: Which scores.

        Raises:
            NumericalFailure: a score is NaN or infinite.
        """
        alpha, beta, gamma = coefficients(g, b)
        which = 2 + GRID.index(kernel)
        found = []
        for terms in self._terms:
            scores = alpha * terms[0] + beta * terms[1] + gamma * terms[which]
            scores.sort()
            found.append(part_gini(scores, removed_count(self._ratio, len(scores)), part))
        mean = math.fsum(found) / len(found)
        if not math.isfinite(mean):
            raise NumericalFailure("a score is NaN or infinite")
        return mean

    def objective(self, g: float, b: float, kernel: int) -> float:
        """Return what the search minimises in place of perplexity."""
        return SIGN * self.gini(g, b, kernel, PART)

    def _sample(self, shape: torch.Size) -> torch.Tensor:
        """Return flat positions in ascending order, int64 [positions]."""
        size = shape.numel()
        if size <= self._positions:
            return torch.arange(size)
        draw = np.random.default_rng((self._seed, *shape))
        return torch.from_numpy(np.sort(draw.choice(size, self._positions, replace=False)))


def minimise(
    objective: Callable[[float, float, int], float],
    params: Pho,
    *,
    evaluated: Callable[[Trial], None],
) -> Trial:
    """Return the candidate of the lowest value; RIA, the first candidate, where none is lower.

    Args:
        objective: Of (g, b, kernel).
        params: Seed and budget: generations x population candidates beside RIA, fewer once the search has converged.
        evaluated: Told of every candidate.
    """

    def trial(g: float, b: float, kernel: int) -> Trial:
        made = Trial(g, b, kernel, objective(g, b, kernel))
        evaluated(made)
        return made

    best = trial(*RIA)
    search = cmaes.CMA(
        np.array(START),
        SIGMA,
        bounds=np.array([[0.0, 1.0]] * len(START)),
        seed=params.seed,
        population_size=params.population,
    )
    for _ in range(params.generations):
        points = [search.ask() for _ in range(params.population)]
        trials = [trial(float(g), float(b), kernel_at(t)) for g, b, t in points]
        best = min(best, *trials, key=lambda made: made.value)
        search.tell([(point, made.value) for point, made in zip(points, trials, strict=True)])
        if search.should_stop():
            break
    return best
