"""`Selector`: turns scores into a mask with an exact count, whatever the pattern."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pruning_core.errors import NumericalFailure, UnsupportedPattern
from pruning_core.numerics.linear_algebra import all_finite, smallest
from pruning_core.spec.patterns import MatrixWide, NofM, Pattern, removed_count


@dataclass(frozen=True)
class Selector:
    """How much goes from one matrix, and in which pattern.

    Attributes:
        ratio: Share of weights removed.
        pattern: Comparison group.
        count: Weights removed from the whole matrix, where an allocation decides; else floor(ratio x size) per group.
    """

    ratio: float
    pattern: Pattern
    count: int | None = None

    def check(self, name: str, shape: tuple[int, int]) -> None:
        """Refuse a matrix that the pattern does not fit.

        Raises:
            UnsupportedPattern: m does not divide the width, or nothing or everything would be removed.
        """
        if isinstance(self.pattern, NofM) and shape[1] % self.pattern.m:
            raise UnsupportedPattern(
                f"{name} has {shape[1]} inputs, which groups of {self.pattern.m} do not divide"
            )
        if self.count is not None:
            return
        size = self.group_size(shape)
        if not 0 < self.removed(size) < size:
            raise UnsupportedPattern(
                f"{name}: a ratio of {self.ratio} removes {self.removed(size)} of {size} weights per group"
            )

    def keep_mask(self, score: torch.Tensor) -> torch.Tensor:
        """Return the mask [out, in], True where the weight stays.

        The lowest scores go, exactly as many as asked; of equal scores the lowest flat index goes first.

        Args:
            score: [out, in], finite.

        Raises:
            NumericalFailure: a score is NaN or infinite.
        """
        if not all_finite(score):
            raise NumericalFailure("a score is NaN or infinite")
        if self.count is not None and not isinstance(self.pattern, NofM):
            return ~self._counted(score, self.count)
        size = self.group_size((score.shape[0], score.shape[1]))
        groups = score.reshape(-1, size)
        return ~smallest(groups, self.removed(size)).reshape(score.shape)

    def at(self, ratio: float) -> Selector:
        """Return the selector of an intermediate ratio, for schedules that approach the final one."""
        return replace(self, ratio=ratio, count=None)

    def group_size(self, shape: tuple[int, int]) -> int:
        """Return how many weights are compared with each other."""
        if isinstance(self.pattern, NofM):
            return self.pattern.m
        return shape[0] * shape[1] if isinstance(self.pattern, MatrixWide) else shape[1]

    def removed(self, size: int) -> int:
        """Return how many of a group's weights go."""
        if isinstance(self.pattern, NofM):
            return self.pattern.m - self.pattern.n
        return removed_count(self.ratio, size)

    def total(self, shape: tuple[int, int]) -> int:
        """Return how many weights go from a whole matrix."""
        if self.count is not None:
            return self.count
        size = self.group_size(shape)
        return shape[0] * shape[1] // size * self.removed(size)

    def _counted(self, score: torch.Tensor, count: int) -> torch.Tensor:
        """Mark `count` weights; per row the counts differ by at most one, and the cheapest extras go."""
        if isinstance(self.pattern, MatrixWide):
            return smallest(score.reshape(1, -1), count).reshape(score.shape)
        base, extra = divmod(count, len(score))
        chosen = smallest(score, base)
        if extra:
            following = score.masked_fill(chosen, torch.inf)
            values, columns = following.min(dim=1)
            rows = smallest(values[None], extra)[0]
            chosen[rows, columns[rows]] = True
        return chosen
