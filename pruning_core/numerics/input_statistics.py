"""Statistics of one input: float32 running means over the tokens of the calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch

from pruning_core.errors import NumericalFailure
from pruning_core.numerics.linear_algebra import all_finite

SKETCH_ROWS = 256
"""Rows of the random sketch that estimates output errors: a relative standard error of at most 9 % of the square."""
HELD = 5
"""One of so many samples is held out."""
T = TypeVar("T")


@dataclass(frozen=True)
class Stats:
    """What a method may ask of its input; only what it needs is filled in.

    Attributes:
        tokens: Number of tokens seen.
        window: Tokens per calibration window.
        column_mean_square: [in], mean of x_j squared.
        column_mean: [in], mean of x_j.
        column_variance: [in], variance of x_j over all tokens.
        column_mean_abs: [in], mean of |x_j|.
        gram: [in, in], mean of x_i x_j; its diagonal is `column_mean_square`.
        sketch: [rows, in], random signed sums S of inputs: E|S D|^2 = sum over tokens of |x D|^2.
        held: Of the tokens that `held_out` picks, with Gram matrix and mean.
    """

    tokens: int
    window: int = 1
    column_mean_square: torch.Tensor | None = None
    column_mean: torch.Tensor | None = None
    column_variance: torch.Tensor | None = None
    column_mean_abs: torch.Tensor | None = None
    gram: torch.Tensor | None = None
    sketch: torch.Tensor | None = None
    held: Stats | None = None
    _made: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def dead_input(self) -> bool:
        """Tell whether the input was zero throughout, or never came; still true of `usable` statistics."""
        squares = self.gram.diagonal() if self.gram is not None else self.column_mean_square
        return self.tokens == 0 or (squares is not None and not bool(squares.any()))

    @property
    def root_mean_square(self) -> torch.Tensor:
        """Root of the mean of x_j squared, [in]; from the Gram matrix where that is all there is."""
        squares = self.column_mean_square
        if squares is None:
            assert self.gram is not None
            squares = self.gram.diagonal()
        return squares.sqrt()

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Return `make()`, called once per input and key: matrices that share an input share factorisations."""
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def usable(self) -> Stats:
        """Return these, or, where the input is dead, those of a unit input: no score and no factorisation is by zero."""
        return self.with_unit_input() if self.dead_input else self

    def with_unit_input(self) -> Stats:
        """Return the statistics of an input never seen: channels all alike, uncorrelated, of mean 0, over no tokens."""
        unit = {
            "column_mean_square": torch.ones_like,
            "column_mean": torch.zeros_like,
            "column_variance": torch.ones_like,
            "column_mean_abs": torch.ones_like,
            "gram": lambda gram: torch.eye(len(gram), device=gram.device),
            "sketch": lambda _sketch: None,
        }
        return replace(self._with(unit), tokens=0, held=None)

    def permuted(self, order: torch.Tensor) -> Stats:
        """Return the statistics of the input with its channels in another order, int64 [in]."""
        last = dict.fromkeys(STATISTICS, lambda value: value[..., order])
        return self._with(last | {"gram": lambda gram: gram[order][:, order]})

    def _with(self, changes: dict[str, Callable[[torch.Tensor], Any]]) -> Stats:
        values = {name: getattr(self, name) for name in changes}
        changed: dict[str, Any] = {
            name: None if value is None else changes[name](value) for name, value in values.items()
        }
        return replace(self, **changed, _made={})


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


class ColumnMean:
    """Mean of x_j, [in]."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._mean = torch.zeros(width, device=device)
        self._tokens = 0

    def update(self, x: torch.Tensor) -> None:
        """Add a batch of inputs, float32 [tokens, in]."""
        self._tokens += len(x)
        self._mean += (x.mean(dim=0) - self._mean) * (len(x) / self._tokens)

    def result(self) -> torch.Tensor:
        """Return the mean, float32 [in]."""
        return self._mean


class ColumnVariance:
    """Variance of x_j over all tokens, [in]; batches are merged by Chan's update."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._mean = torch.zeros(width, device=device)
        self._squares = torch.zeros(width, device=device)
        self._tokens = 0

    def update(self, x: torch.Tensor) -> None:
        """Add a batch of inputs, float32 [tokens, in]."""
        variance, mean = torch.var_mean(x, dim=0, correction=0)
        tokens = self._tokens + len(x)
        delta = mean - self._mean
        self._squares += variance * len(x) + delta.square() * (self._tokens * len(x) / tokens)
        self._mean += delta * (len(x) / tokens)
        self._tokens = tokens

    def result(self) -> torch.Tensor:
        """Return the variance, float32 [in]."""
        return self._squares / max(1, self._tokens)


class ColumnMeanAbs:
    """Mean of |x_j|, [in]."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._sum = torch.zeros(width, device=device)
        self._tokens = 0

    def update(self, x: torch.Tensor) -> None:
        """Add a batch of inputs, float32 [tokens, in]."""
        self._sum += torch.linalg.vector_norm(x, ord=1, dim=0)
        self._tokens += len(x)

    def result(self) -> torch.Tensor:
        """Return the mean, float32 [in]."""
        return self._sum / max(1, self._tokens)


class Gram:
    """Mean of x_i x_j, [in, in]; only the blocks on and below the diagonal are computed."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._sum = torch.zeros(width, width, device=device)
        self._tokens = 0
        pieces = max(1, min(8, width // 192))
        self._edges = [width * piece // pieces for piece in range(pieces + 1)]

    def update(self, x: torch.Tensor) -> None:
        """Add a batch of inputs, float32 [tokens, in]."""
        for start, stop in zip(self._edges, self._edges[1:], strict=False):
            self._sum[start:stop, :stop].addmm_(x[:, start:stop].T, x[:, :stop])
        self._tokens += len(x)

    def result(self) -> torch.Tensor:
        """Return the mean, float32 [in, in], exactly symmetric."""
        lower = self._sum.tril().div_(max(1, self._tokens))
        return lower.add_(lower.tril(-1).T)


class Sketch:
    """Random signed sums of inputs, [rows, in]: every token is added to one row, with a random sign.

    Runs of tokens start at a random row, so that what is always in one place (the first token) meets every row.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self._sum = torch.zeros(SKETCH_ROWS, width, device=device)
        self._generator = torch.Generator().manual_seed(0)

    def update(self, x: torch.Tensor) -> None:
        """Add a batch of inputs, float32 [tokens, in]."""
        drawn = torch.randint(2, (len(x), 1), generator=self._generator) * 2.0 - 1
        chunks = list(
            zip(*(torch.split(t, SKETCH_ROWS) for t in (x, drawn.to(x.device))), strict=True)
        )
        shifts = torch.randint(SKETCH_ROWS, (len(chunks),), generator=self._generator).tolist()
        for (chunk, signs), shift in zip(chunks, shifts, strict=True):
            fitting = min(len(chunk), SKETCH_ROWS - shift)
            self._sum[shift : shift + fitting].addcmul_(signs[:fitting], chunk[:fitting])
            self._sum[: len(chunk) - fitting].addcmul_(signs[fitting:], chunk[fitting:])

    def result(self) -> torch.Tensor:
        """Return the sums, float32 [rows, in]."""
        return self._sum


ACCUMULATORS: dict[str, Callable[[int, torch.device], Accumulator]] = {
    "column_mean_square": ColumnMeanSquare,
    "column_mean": ColumnMean,
    "column_variance": ColumnVariance,
    "column_mean_abs": ColumnMeanAbs,
    "gram": Gram,
    "sketch": Sketch,
}
STATISTICS = tuple(ACCUMULATORS)


def held_out(x: torch.Tensor) -> torch.Tensor:
    """Return the part of a batch [..., in] that is held out: every fifth sample; of fewer the last fifth of their tokens."""
    if x.ndim == 3 and len(x) >= HELD:
        return x[HELD - 1 :: HELD]
    tokens = x.shape[-2]
    return x[..., tokens - tokens // HELD :, :]


class Collector:
    """All statistics of one input that a method needs; `held` among them is those of what is held out."""

    def __init__(
        self, needs: Iterable[str], width: int, device: torch.device, window: int = 1
    ) -> None:
        self._width = width
        self._window = window
        asked = set(needs)
        self._held = None
        if "held" in asked:
            self._held = Collector({"gram", "column_mean"}, width, device, window)
        names = sorted(asked - {"held"})
        self._accumulators = {name: ACCUMULATORS[name](width, device) for name in names}
        self.tokens = 0

    def update(self, x: torch.Tensor) -> None:
        """Add inputs of any leading shape, [..., in]."""
        flat = x.detach().reshape(-1, self._width).float()
        if not len(flat):
            return
        if self._held is not None:
            self._held.update(held_out(x))
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
        values: dict[str, Any] = {key: part.result() for key, part in self._accumulators.items()}
        for key, value in values.items():
            if not all_finite(value):
                raise NumericalFailure(
                    f"{name}: {key} of its input is NaN or infinite during calibration"
                )
        held = None if self._held is None else self._held.stats(name)
        return Stats(tokens=self.tokens, window=self._window, held=held, **values)
