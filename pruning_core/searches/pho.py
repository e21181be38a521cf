"""PHO, a reconstruction after Park, arXiv 2606.01544: CRePE's coefficients without perplexity in the loop.

objective(g, b, kernel) = mean over matrices of  (share of e that the matrix loses) + (mean share that its rows lose),
                          e_ij = W_ij^2 q_j,  q_j = mean over tokens of x_j squared, of the dense model
minimised by CMA-ES over (g, b, t) in [0, 1]^3, kernel = GRID[round(t (len - 1))], start (0.25, 0.5, 0), sigma 0.25

Known of the paper: a Gini index of scores stands for perplexity, and CMA-ES searches. On the model that we measured
(docs/methods/crepe.md) no Gini index of scores follows perplexity; the energy that matrices and their rows lose does,
so that is what we minimise. The coordinates and CMA-ES's settings are ours.
A matrix is judged by a sample of its rows and columns; the lowest scores of the sample go, as many as the ratio says,
whatever the pattern.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeAlias

import cmaes
import numpy as np
import numpy.typing as npt
import torch

from pruning_core.element_methods.crepe import neighbourhood
from pruning_core.errors import NumericalFailure
from pruning_core.numerics.importance import activation, relative_importance
from pruning_core.numerics.input_statistics import Stats
from pruning_core.searches.space import GRID, RIA, Perplexity, Trial, coefficients, kernel_at
from pruning_core.spec.element_methods import CRePE
from pruning_core.spec.patterns import removed_count
from pruning_core.spec.search import Pho

Scores: TypeAlias = npt.NDArray[np.float32]
START: Final = (0.25, 0.5, 0.0)
SIGMA: Final = 0.25


@dataclass(frozen=True)
class _Sample:
    """Part of one matrix.

    Attributes:
        terms: Row, column and every kernel's neighbourhood term, times the activation, [2 + kernels, positions].
        shares: What the loss of each weight adds to the objective, [positions].
    """

    terms: Scores
    shares: Scores


class Proxy:
    """What stands for perplexity, at sampled positions of every matrix; 40 bytes per position."""

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
        self._samples: list[_Sample] = []

    def observe(self, weight: torch.Tensor, stats: Stats) -> None:
        """Add a matrix.

        Args:
            weight: [out, in] float32, dense.
            stats: Of its input, with `column_mean_square`.
        """
        assert stats.column_mean_square is not None
        rows, columns = (place.to(weight.device) for place in self._places(weight.shape))
        near = (neighbourhood(weight, kernel, self._params.neighbour) for kernel in GRID)
        scale = activation(stats, self._params.exponent)[columns]
        terms = [
            (term[rows][:, columns] * scale).flatten()
            for term in chain(relative_importance(weight), near)
        ]
        energy = weight[rows][:, columns].square() * stats.column_mean_square[columns]
        of_rows = energy.sum(dim=1, keepdim=True)
        whole = of_rows.sum()
        shares = energy / of_rows.masked_fill(of_rows == 0, 1) / len(rows)
        shares += energy / whole.masked_fill(whole == 0, 1)
        self._samples.append(
            _Sample(torch.stack(terms).cpu().numpy(), shares.flatten().cpu().numpy())
        )

    def scores(self, g: float, b: float, kernel: int) -> Iterator[tuple[Scores, Scores]]:
        """Yield every sample's scores at a point, and what the loss of each weight adds to the objective.

        Args:
            g: Share of the neighbourhood term.
            b: Share of the row term in the rest.
            kernel: Side of the neighbourhood, one of the grid's.
        """
        alpha, beta, gamma = coefficients(g, b)
        which = 2 + GRID.index(kernel)
        for sample in self._samples:
            scores = alpha * sample.terms[0] + beta * sample.terms[1]
            if gamma:
                scores += gamma * sample.terms[which]
            yield scores, sample.shares

    def objective(self, g: float, b: float, kernel: int) -> float:
        """Return what the search minimises in place of perplexity, at a point of the space.

        Raises:
            NumericalFailure: a score is NaN or infinite.
        """
        lost = [_lost(*sample, self._ratio) for sample in self.scores(g, b, kernel)]
        return math.fsum(lost) / len(lost)

    def _places(self, shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sampled rows and columns in ascending order, int64."""
        draw = np.random.default_rng((self._seed, *shape))
        rows = min(shape[0], max(math.isqrt(self._positions), self._positions // shape[1]))
        columns = min(shape[1], max(1, self._positions // rows))
        chosen = (
            np.sort(draw.choice(size, count, replace=False))
            for size, count in zip(shape, (rows, columns), strict=True)
        )
        first, second = (torch.from_numpy(places) for places in chosen)
        return first, second


def _lost(scores: Scores, shares: Scores, ratio: float) -> float:
    """Return the sum of the shares of the lowest scores."""
    if not np.isfinite(scores).all():
        raise NumericalFailure("a score is NaN or infinite")
    count = removed_count(ratio, len(scores))
    lowest = np.argpartition(scores, count)[:count]
    return float(shares[lowest].sum(dtype=np.float64))


class Search:
    """The search as a job runs it, with a perplexity at its end; see `CoefficientSearch`."""

    def __init__(self, params: Pho, method: CRePE, ratio: float, perplexity: Perplexity) -> None:
        self._params = params
        self._perplexity = perplexity
        self._proxy = Proxy(method, ratio, seed=params.seed)

    def see(self, weight: torch.Tensor, stats: Stats) -> None:
        """Add a matrix to the proxy."""
        self._proxy.observe(weight, stats)

    def find(self, evaluated: Callable[[Trial], None]) -> Trial:
        """Return the candidate of the lowest objective."""
        return minimise(self._proxy.objective, self._params, evaluated=evaluated)

    def check(self, ria: Trial, best: Trial) -> tuple[Trial, Trial]:
        """Return RIA, and the best candidate or the same without its neighbourhood term, whichever has the lower perplexity.

        The proxy sees single weights; what a neighbourhood does to the outputs it overrates (`docs/methods/crepe.md`).
        """
        measured = self._measured(*RIA)
        if best == ria:
            return measured, measured
        trials = [self._measured(best.g, best.b, best.kernel)]
        if best.g:
            trials.append(self._measured(0.0, best.b, RIA[2]))
        return measured, min(trials, key=lambda trial: trial.value)

    def _measured(self, g: float, b: float, kernel: int) -> Trial:
        return Trial(g, b, kernel, self._perplexity(g, b, kernel))


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
