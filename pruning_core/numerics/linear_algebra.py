"""Small numerical helpers whose speed matters."""

from __future__ import annotations

import math

import numpy as np
import torch

from pruning_core.errors import NumericalFailure


def all_finite(tensor: torch.Tensor) -> bool:
    """Tell whether no element is NaN or infinite, in one pass and without a mask of the tensor's size."""
    if tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)
    return math.isfinite(low) and math.isfinite(high)


def kth_smallest(groups: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k-th smallest (from 1) of each row of float32 [groups, size], as [groups, 1].

    On a CPU numpy's vectorised selection is about ten times faster than `torch.kthvalue`.
    """
    if groups.device.type != "cpu":
        return groups.kthvalue(k, dim=1, keepdim=True).values
    return torch.from_numpy(np.partition(groups.numpy(), k - 1, axis=1)[:, k - 1 : k])


def smallest(groups: torch.Tensor, count: int) -> torch.Tensor:
    """Mark the `count` smallest of each row of [groups, size], the first of equals first."""
    if count == 0:
        return torch.zeros_like(groups, dtype=torch.bool)
    threshold = kth_smallest(groups, count)
    chosen = groups <= threshold
    surplus = chosen.sum(dim=1) > count
    if surplus.any():
        rows, at = groups[surplus], threshold[surplus]
        below, tied = rows < at, rows == at
        wanted = count - below.sum(dim=1, keepdim=True)
        chosen[surplus] = below | (tied & (tied.cumsum(dim=1) <= wanted))
    return chosen


def damping(gram: torch.Tensor, damp: float) -> float:
    """Return `damp` x the mean diagonal of a Gram matrix; 1 where that is 0, which leaves magnitude to decide."""
    return damp * float(gram.diagonal().mean()) or 1.0


def damped_cholesky(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """Return the lower Cholesky factor of gram + damping x I, with up to a thousand times the damping if it must be.

    Raises:
        NumericalFailure: not even then is it positive definite.
    """
    for factor in (1, 10, 100, 1000):
        damped = gram.clone()
        damped.diagonal().add_(damping * factor)
        lower: torch.Tensor
        lower, info = torch.linalg.cholesky_ex(damped)
        if not int(info) and all_finite(lower):
            return lower
    raise NumericalFailure(
        f"a Gram matrix of width {len(gram)} is not positive definite even with damping {1000 * damping:.3g}"
    )
