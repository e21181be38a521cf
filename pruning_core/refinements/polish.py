"""Masked least squares: the conjugate-gradient post-processing of ALPS, arXiv 2406.07831, made a refinement.

minimise tr((Z - W) G (Z - W)^T) + lambda |Z - Z0|^2 over Z that are zero where the mask is,
with W the dense weight, Z0 the incoming one, lambda = damp * mean(diag G), by Jacobi-preconditioned conjugate gradients,
every row at once.

Departure: the authors start from their ADMM only. The pull towards Z0 is ours: with it no row's loss ever rises,
whatever Z0 is, and rows for which there are too few tokens stay close to what came in.
"""

from __future__ import annotations

import torch

from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.linear_algebra import damping
from pruning_core.numerics.masked_least_squares import masked_least_squares
from pruning_core.selection.masks import Selector
from pruning_core.spec.composition import Polish

NEEDS: tuple[str, ...] = ("gram",)


def refine(
    dense: torch.Tensor,
    weight: torch.Tensor,
    keep_mask: torch.Tensor,
    stats: Stats,
    select: Selector,
    params: Polish,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight [out, in] with its survivors improved, and the mask as it came."""
    assert stats.gram is not None
    pull = damping(stats.gram, params.damp) if params.damp else 0.0
    return masked_least_squares(dense, weight, keep_mask, stats.gram, pull, params.steps), keep_mask
