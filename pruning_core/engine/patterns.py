"""`Selector`: turns scores into a mask with an exact count, whatever the pattern."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning_core.engine.numerics import all_finite, kth_smallest
from pruning_core.errors import NumericalFailure, UnsupportedPattern
from pruning_core.spec.patterns import MatrixWide, NofM, Pattern, removed_count


@dataclass(frozen=True)
class Selector:
    """Ratio and pattern of one matrix."""

    ratio: float
    pattern: Pattern

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Refuse a matrix that the pattern does not fit.

        Raises:
            UnsupportedPattern: m does not divide the width, or nothing or everything would be removed.
        """
        if isinstance(self.pattern, NofM) and shape[1] % self.pattern.m:
            raise UnsupportedPattern(
                f"{name} has {shape[1]} inputs, which groups of {self.pattern.m} do not divide"
            )
        size = self._group_size(shape)
        if not 0 < self._removed(size) < size:
            raise UnsupportedPattern(
                f"{name}: a ratio of {self.ratio} removes {self._removed(size)} of {size} weights per group"
            )

    def keep(self, score: torch.Tensor) -> torch.Tensor:
        """Return the mask [out, in], True where the weight stays.

        The lowest scores go, exactly `removed` of each group; of equal scores the lowest flat index goes first.

        Args:
            score: [out, in], finite.

        Raises:
            NumericalFailure: a score is NaN or infinite.
        """
        if not all_finite(score):
            raise NumericalFailure("a score is NaN or infinite")
        size = self._group_size((score.shape[0], score.shape[1]))
        groups = score.reshape(-1, size)
        return ~_smallest(groups, self._removed(size)).reshape(score.shape)

    def _group_size(self, shape: tuple[int, int]) -> int:
        if isinstance(self.pattern, NofM):
            return self.pattern.m
        return shape[0] * shape[1] if isinstance(self.pattern, MatrixWide) else shape[1]

    def _removed(self, size: int) -> int:
        if isinstance(self.pattern, NofM):
            return self.pattern.m - self.pattern.n
        return removed_count(self.ratio, size)


def _smallest(groups: torch.Tensor, count: int) -> torch.Tensor:
    """Mark the `count` smallest of each row of [groups, size], the first of equals first."""
    if count == 0:
        return torch.zeros_like(groups, dtype=torch.bool)
    threshold = kth_smallest(groups, count)
    removed = groups <= threshold
    surplus = removed.sum(dim=1) > count
    if surplus.any():
        rows, at = groups[surplus], threshold[surplus]
        below, tied = rows < at, rows == at
        wanted = count - below.sum(dim=1, keepdim=True)
        removed[surplus] = below | (tied & (tied.cumsum(dim=1) <= wanted))
    return removed
