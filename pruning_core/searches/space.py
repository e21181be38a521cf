"""The space in which CRePE's coefficients are searched: two shares and a kernel.

gamma = 2 g,  alpha = 2 (1 - g) b,  beta = 2 (1 - g) (1 - b),  g and b in [0, 1],  kernel on a grid

Only the ratios of the three coefficients matter to a mask, so their sum is fixed at 2; RIA is g = 0, b = 0.5. Shares
and grid are ours: the paper's bounds are not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from pruning_core.numerics.input_statistics import Stats

Perplexity = Callable[[float, float, int], float]
"""Of the candidate (g, b, kernel), on the search text."""
GRID = (3, 5, 7, 9, 15, 31, 65)
"""Kernels that a search tries."""
RIA = (0.0, 0.5, GRID[0])
"""The point (g, b, kernel) that is RIA exactly; every search tries it first."""


@dataclass(frozen=True)
class Trial:
    """A candidate and what it was found to be worth.

    Attributes:
        g: Share of the neighbourhood term.
        b: Share of the row term in the rest.
        kernel: Side of the neighbourhood.
        value: Of what is minimised.
    """

    g: float
    b: float
    kernel: int
    value: float


class CoefficientSearch(Protocol):
    """One search, made for one method and ratio, in the order in which it is asked."""

    def see(self, weight: torch.Tensor, stats: Stats) -> None:
        """Look at a matrix of the dense model, [out, in], and the statistics of its input."""

    def find(self, evaluated: Callable[[Trial], None]) -> Trial:
        """Return the best candidate; tell `evaluated` of every one, RIA first."""

    def check(self, ria: Trial, best: Trial) -> tuple[Trial, Trial]:
        """Return RIA and what is best by perplexity, each with its perplexity, given their trials."""


def coefficients(g: float, b: float) -> tuple[float, float, float]:
    """Return CRePE's (alpha, beta, gamma)."""
    return 2 * (1 - g) * b, 2 * (1 - g) * (1 - b), 2 * g


def kernel_at(t: float) -> int:
    """Return the kernel a share t of the way through the grid, t in [0, 1]."""
    return GRID[round(t * (len(GRID) - 1))]
