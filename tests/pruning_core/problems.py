"""Small pruning problems with correlated inputs, and their losses and masks in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st

from pruning_core.numerics.input_statistics import Stats
from pruning_core.selection.masks import Selector
from pruning_core.spec.patterns import MatrixWide, NofM, Pattern, Row, removed_count

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
ROW, MATRIX, TWO_OF_FOUR = Row(), MatrixWide(), NofM(n=2, m=4)
PATTERNS = [ROW, MATRIX, TWO_OF_FOUR, NofM(n=1, m=4), NofM(n=3, m=4), NofM(n=4, m=8)]
SCHEDULES: list[dict[str, Any]] = [{"schedule": "adaptive"}, {"schedule": "gradual"}]
seeds = st.integers(0, 2**31)


def name_of(pattern: Any) -> str:
    return f"{pattern.n}of{pattern.m}" if isinstance(pattern, NofM) else str(pattern.name)


def selector(pattern: Pattern, ratio: float = 0.5) -> Selector:
    return Selector(1 - pattern.n / pattern.m if isinstance(pattern, NofM) else ratio, pattern)


def inputs_of(width: int, seed: int, *, tokens: int = 400) -> torch.Tensor:
    """Correlated channels of unlike scale."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(width) + 0.6 * torch.randn(width, width, generator=generator) / width**0.5
    scale = torch.rand(width, generator=generator) * 2 + 0.2
    return torch.randn(tokens, width, generator=generator) @ mixing * scale


def problem(
    rows: int, width: int, seed: int, *, tokens: int = 400, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, Stats]:
    generator = torch.Generator().manual_seed(seed)
    inputs = inputs_of(width, seed, tokens=tokens).double()
    gram = (inputs.T @ inputs / tokens).to(dtype)
    weight = torch.randn(rows, width, generator=generator).to(dtype)
    return weight, Stats(tokens=tokens, gram=gram, column_mean_square=gram.diagonal())


def loss(change: torch.Tensor, stats: Stats) -> Array:
    """tr((Z - W) G (Z - W)^T), row by row."""
    assert stats.gram is not None
    d, g = change.double().numpy(), stats.gram.double().numpy()
    return np.einsum("ri,ij,rj->r", d, g, d)


def solved(weight: torch.Tensor, keep: torch.Tensor, stats: Stats) -> Array:
    """The best weights for a mask: normal equations, row by row."""
    assert stats.gram is not None
    gram, dense = stats.gram.double().numpy(), weight.double().numpy()
    result = np.zeros_like(dense)
    for row, mask in enumerate(keep.numpy()):
        right = gram[mask] @ dense[row]
        result[row, mask] = np.linalg.lstsq(gram[np.ix_(mask, mask)], right, rcond=None)[0]
    return result


def lowest(scores: Array, count: int) -> Mask:
    """Mark the `count` smallest of a flat array."""
    removed = np.zeros(scores.size, dtype=bool)
    removed[np.argsort(scores.ravel(), kind="stable")[:count]] = True
    return removed.reshape(scores.shape)


def choose(scores: Array, select: Selector, ratio: float | None = None) -> Mask:
    """What stays, group by group."""
    pattern, rows = select.pattern, range(len(scores))
    ratio = select.ratio if ratio is None else ratio
    removed = np.zeros(scores.shape, dtype=bool)
    if isinstance(pattern, MatrixWide):
        return ~lowest(scores, removed_count(ratio, scores.size))
    for row in rows:
        if isinstance(pattern, Row):
            removed[row] = lowest(scores[row], removed_count(ratio, scores.shape[1]))
            continue
        for at in range(0, scores.shape[1], pattern.m):
            group = slice(at, at + pattern.m)
            removed[row, group] = lowest(scores[row, group], pattern.m - pattern.n)
    return ~removed
