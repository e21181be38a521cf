"""Least squares on a fixed mask, by Jacobi-preconditioned conjugate gradients, every row at once.

minimise tr((Z - W) G (Z - W)^T) + lambda |Z - Z0|^2 over Z that are zero where the mask is
"""

from __future__ import annotations

import torch

FINISHED = 1e-11
"""A row ends when its preconditioned residual has shrunk to this share: float32 can tell no more, and would diverge."""
FLAT = 1e-6
"""A row ends when a direction's curvature is this small beside that of its channels alone: rounding decides its sign."""


def masked_least_squares(
    dense: torch.Tensor,
    start: torch.Tensor,
    keep_mask: torch.Tensor,
    gram: torch.Tensor,
    pull: float,
    steps: int,
) -> torch.Tensor:
    """Return Z [out, in] after some steps from `start`.

    Args:
        dense: W, [out, in].
        start: Z0, [out, in].
        keep_mask: Support, [out, in].
        gram: G, [in, in].
        pull: lambda.
        steps: Conjugate-gradient steps.
    """
    mask = keep_mask.to(start.dtype)
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
