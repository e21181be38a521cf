"""Masked least squares: the conjugate-gradient post-processing of ALPS, arXiv 2406.07831, made a refinement.

minimise tr((Z - W) G (Z - W)^T) + lambda |Z - Z0|^2 over Z that are zero where the mask is,
with W the dense weight, Z0 the incoming one, lambda = damp * mean(diag G), by Jacobi-preconditioned conjugate gradients,
every row at once.

Departure: the authors start from their ADMM only. The pull towards Z0 is ours: with it no row's loss ever rises,
whatever Z0 is, and rows for which there are too few tokens stay close to what came in.
"""

from __future__ import annotations

import torch

from pruning_core.engine.numerics import damping
from pruning_core.engine.patterns import Selector
from pruning_core.engine.stats import Stats
from pruning_core.spec.composition import Polish

NEEDS: tuple[str, ...] = ("gram",)
FINISHED = 1e-11
"""A row ends when its preconditioned residual has shrunk to this share: float32 can tell no more, and would diverge."""
FLAT = 1e-6
"""A row ends when a direction's curvature is this small beside that of its channels alone: rounding decides its sign."""


def refine(
    dense: torch.Tensor,
    weight: torch.Tensor,
    keep: torch.Tensor,
    stats: Stats,
    select: Selector,
    params: Polish,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight [out, in] with its survivors improved, and the mask as it came."""
    assert stats.gram is not None
    pull = damping(stats.gram, params.damp) if params.damp else 0.0
    return least_squares(dense, weight, keep, stats.gram, pull, params.steps), keep


def least_squares(
    dense: torch.Tensor,
    start: torch.Tensor,
    keep: torch.Tensor,
    gram: torch.Tensor,
    pull: float,
    steps: int,
) -> torch.Tensor:
    """Return Z after some steps from `start`.

    Args:
        dense: W, [out, in].
        start: Z0, [out, in].
        keep: Support, [out, in].
        gram: G, [in, in].
        pull: lambda.
        steps: Conjugate-gradient steps.
    """
    mask = keep.to(start.dtype)
    result = start * mask
    residual = ((dense - result) @ gram).mul_(mask)
    diagonal = (gram.diagonal() + pull).clamp(min=torch.finfo(gram.dtype).tiny)
    direction = residual / diagonal
    energy = (residual * direction).sum(dim=1, keepdim=True)
    finished = energy * FINISHED
    for _ in range(steps):
        image = (direction @ gram).add_(direction, alpha=pull).mul_(mask)
        curvature = (direction * image).sum(dim=1, keepdim=True)
        flat = (direction.square() @ diagonal)[:, None] * FLAT
        length = _ratio(energy, curvature, (energy > finished) & (curvature > flat))
        result.addcmul_(direction, length)
        residual.addcmul_(image, length, value=-1)
        scaled = residual / diagonal
        following = (residual * scaled).sum(dim=1, keepdim=True)
        direction.mul_(_ratio(following, energy, length > 0)).add_(scaled)
        energy = torch.where(length > 0, following, 0)
    return result


def _ratio(above: torch.Tensor, below: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Divide per row, [out, 1]; a row that is done gets 0."""
    return torch.where(usable, above / torch.where(usable, below, 1), 0)
