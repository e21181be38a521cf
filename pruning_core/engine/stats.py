"""Statistics of one input: float32 running means over the tokens of the calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from pruning_core.engine.numerics import all_finite
from pruning_core.errors import NumericalFailure


@dataclass(frozen=True)
class Stats:
    """What a method may ask of its input; only what it needs is filled in.

    Attributes:
        tokens: Number of tokens seen.
        column_mean_square: [in], mean of x_j squared.
    """

    tokens: int
    column_mean_square: torch.Tensor | None = None

    @property
    def silent(self) -> bool:
        """Tell whether the input was zero throughout, or never came."""
        q = self.column_mean_square
        return self.tokens == 0 or (q is not None and not bool(q.any()))

    def with_unit_input(self) -> Stats:
        """Return the statistics of an input whose channels are all alike."""
        q = self.column_mean_square
        return replace(self, column_mean_square=None if q is None else torch.ones_like(q))


class Accumulator(Protocol):
    """One running statistic."""

    def update(self, x: torch.Tensor) -> None:
        """Add a batch of inputs, float32 [tokens, in]."""

    def result(self) -> torch.Tensor:
        """Return the statistic over all tokens so far."""


class ColumnMeanSquare:
    """Mean of x_j squared, [in].

    The order of operations is that of the authors' Wanda: fed one window at a time it rounds as theirs does.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self._mean = torch.zeros(width, device=device)
        self._tokens = 0

    def update(self, x: torch.Tensor) -> None:
        """Add a batch of inputs, float32 [tokens, in]."""
        tokens = self._tokens + len(x)
        self._mean *= self._tokens / tokens
        self._mean += torch.linalg.vector_norm(x, dim=0).square() / tokens
        self._tokens = tokens

    def result(self) -> torch.Tensor:
        """Return the mean, float32 [in]."""
        return self._mean


ACCUMULATORS: dict[str, Callable[[int, torch.device], Accumulator]] = {
    "column_mean_square": ColumnMeanSquare,
}


class Collector:
    """All statistics of one input that a method needs."""

    def __init__(self, needs: Iterable[str], width: int, device: torch.device) -> None:
        self._width = width
        self._accumulators = {name: ACCUMULATORS[name](width, device) for name in sorted(needs)}
        self.tokens = 0

    def update(self, x: torch.Tensor) -> None:
        """Add inputs of any leading shape, [..., in]."""
        flat = x.detach().reshape(-1, self._width).float()
        self.tokens += flat.shape[0]
        for accumulator in self._accumulators.values():
            accumulator.update(flat)

    def stats(self, name: str) -> Stats:
        """Return the statistics.

        Args:
            name: What the input feeds, for the error.

        Raises:
            NumericalFailure: a statistic is NaN or infinite.
        """
        values = {key: part.result() for key, part in self._accumulators.items()}
        for key, value in values.items():
            if not all_finite(value):
                raise NumericalFailure(
                    f"{name}: {key} of its input is NaN or infinite during calibration"
                )
        return Stats(tokens=self.tokens, **values)
