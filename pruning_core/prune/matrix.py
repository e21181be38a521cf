"""One matrix: method, refinements, channel order, write back, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pruning_core.errors import NumericalFailure
from pruning_core.model.channel_order import AbsorbedPermutation
from pruning_core.model.matrix import Matrix
from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.linear_algebra import all_finite
from pruning_core.plans.registry import Element, Refine
from pruning_core.selection.masks import Selector
from pruning_core.spec.patterns import NofM
from pruning_core.spec.report_parts.removal import MatrixReport


@dataclass(frozen=True)
class Ordering:
    """An order of a matrix's input channels for n:m.

    Attributes:
        order: int64 [in], the original channel at each place.
        score: [out, in], the importance that decided it, in the original order.
        absorbed: What absorbs the order, so that the result stays in it; None where the order is saved beside the model.
    """

    order: torch.Tensor
    score: torch.Tensor
    absorbed: AbsorbedPermutation | None

    def apply(self, dense: torch.Tensor, stats: Stats) -> tuple[torch.Tensor, Stats, torch.Tensor]:
        """Return the weight [out, in], the statistics of its input, and the score [out, in] in this order."""
        return dense[:, self.order], stats.permuted(self.order), self.score[:, self.order]

    def undo(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight [out, in] as the model stores it: where nothing absorbs the order, in the original one."""
        return weight if self.absorbed is not None else weight[:, self.order.argsort()]


def prune_matrix(
    matrix: Matrix,
    name: str,
    stats: Stats,
    method: Element,
    refinements: Sequence[Refine],
    select: Selector,
    *,
    ordering: Ordering | None,
    stored: torch.dtype,
) -> MatrixReport:
    """Prune one matrix in place.

    Args:
        matrix: Which.
        name: Its stored name.
        stats: Of its input, in the channels' original order.
        method: The method.
        refinements: What is applied after it, in order.
        select: How much, and in which pattern.
        ordering: The order in which n:m groups are counted; None for the stored one.
        stored: The dtype that the checkpoint stores.

    Raises:
        UnsupportedPattern, NumericalFailure: the pattern does not fit, or the method produced NaN or infinity.
    """
    select.check(name, matrix.shape)
    dense, score = matrix.read(), None
    if ordering is not None:
        dense, stats, score = ordering.apply(dense, stats)
    weight, keep_mask = method.prune(dense.clone(), stats, select, score)
    for step in refinements:
        weight, keep_mask = step.apply(dense, weight, keep_mask, stats, select, step.params)
    weight = weight.to(stored)
    removed = _checked(name, weight, keep_mask, select)
    report = MatrixReport(
        name=name,
        shape=matrix.shape,
        zeros=weight.numel() - int(weight.count_nonzero()),
        removed=removed,
        sparsity=removed / keep_mask.numel(),
        error=output_error(dense, weight.float(), stats),
    )
    matrix.write(weight if ordering is None else ordering.undo(weight), stored=stored)
    return report


def _checked(name: str, weight: torch.Tensor, keep_mask: torch.Tensor, select: Selector) -> int:
    """Return how many weights were removed; refuse a result that is not what was asked for, before it is written.

    Args:
        name: For the error.
        weight: [out, in], as stored, n:m groups side by side.
        keep_mask: [out, in].
        select: How much, and in which pattern.
    """
    if not all_finite(weight):
        raise NumericalFailure(
            f"{name}: the method produced NaN, infinity or more than {weight.dtype} holds"
        )
    removed, asked = (
        keep_mask.numel() - int(keep_mask.sum()),
        select.total((keep_mask.shape[0], keep_mask.shape[1])),
    )
    if removed != asked:
        raise NumericalFailure(f"{name}: {removed} weights were removed, {asked} were asked for")
    if bool(weight.masked_fill(keep_mask, 0).any()):
        raise NumericalFailure(f"{name}: a removed weight is not zero")
    pattern = select.pattern
    if isinstance(pattern, NofM) and bool(
        (keep_mask.view(-1, pattern.m).sum(dim=1) != pattern.n).any()
    ):
        raise NumericalFailure(f"{name}: a group does not keep {pattern.n} of {pattern.m}")
    return removed


def output_error(dense: torch.Tensor, weight: torch.Tensor, stats: Stats) -> float | None:
    """Return |X (W' - W)^T| / |X W^T| over the calibration tokens; None without any, or where the dense output is 0."""
    if stats.tokens == 0:
        return None
    if stats.gram is not None:
        change = weight - dense
        squares = [((matrix @ stats.gram) * matrix).sum() for matrix in (change, dense)]
    elif stats.sketch is not None:
        squares = [(stats.sketch @ matrix.T).square().sum() for matrix in (weight - dense, dense)]
    else:
        return None
    above, below = (max(0.0, float(square)) for square in squares)
    return (above / below) ** 0.5 if below > 0 else None
