"""Small numerical helpers whose speed matters."""

from __future__ import annotations

import math

import numpy as np
import torch


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
