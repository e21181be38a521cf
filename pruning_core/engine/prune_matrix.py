"""One matrix: method, refinements, channel order, write back, and what became of it."""

from __future__ import annotations

import torch

from pruning_core.engine.matrix import Matrix
from pruning_core.engine.numerics import all_finite
from pruning_core.engine.patterns import Selector
from pruning_core.engine.plan import Plan
from pruning_core.engine.stats import Stats
from pruning_core.errors import NumericalFailure
from pruning_core.spec.patterns import NofM
from pruning_core.spec.report import MatrixReport


def prune_matrix(
    matrix: Matrix,
    name: str,
    stats: Stats,
    plan: Plan,
    select: Selector,
    *,
    order: torch.Tensor | None,
    folded: bool,
    stored: torch.dtype,
) -> MatrixReport:
    """Prune one matrix in place.

    Args:
        matrix: Which.
        name: Its stored name.
        stats: Of its input, in the channels' original order.
        plan: Method and refinements.
        select: How much, and in which pattern.
        order: int64 [in], the order in which n:m groups are counted; None for the stored one.
        folded: Leave the result in that order, because what writes the input is reordered too.
        stored: The dtype that the checkpoint stores.

    Raises:
        UnsupportedPattern: the pattern does not fit the matrix.
        NumericalFailure: the method produced NaN or infinity.
    """
    select.check(name, matrix.shape)
    dense = matrix.read()
    if order is not None:
        dense, stats = dense[:, order], stats.permuted(order)
    weight, keep = plan.element.prune(dense.clone(), stats, select, order)
    for part in plan.refinements_of(matrix.name):
        weight, keep = part.apply(dense, weight, keep, stats, select, part.params)
    weight = weight.to(stored)
    _check(name, weight, keep, select)
    error = output_error(dense, weight.float(), stats)
    if order is not None and not folded:
        weight = weight[:, order.argsort()]
    matrix.write(weight, stored=stored)
    removed = keep.numel() - int(keep.sum())
    return MatrixReport(
        name=name,
        shape=matrix.shape,
        zeros=weight.numel() - int(weight.count_nonzero()),
        removed=removed,
        sparsity=removed / keep.numel(),
        error=error,
    )


def _check(name: str, weight: torch.Tensor, keep: torch.Tensor, select: Selector) -> None:
    """Refuse a result that is not what was asked for, before it is written.

    Args:
        name: For the error.
        weight: [out, in], as stored, n:m groups side by side.
        keep: [out, in].
        select: How much, and in which pattern.
    """
    if not all_finite(weight):
        raise NumericalFailure(
            f"{name}: the method produced NaN, infinity or more than {weight.dtype} holds"
        )
    removed, asked = keep.numel() - int(keep.sum()), select.total((keep.shape[0], keep.shape[1]))
    if removed != asked:
        raise NumericalFailure(f"{name}: {removed} weights were removed, {asked} were asked for")
    if bool(weight.masked_fill(keep, 0).any()):
        raise NumericalFailure(f"{name}: a removed weight is not zero")
    pattern = select.pattern
    if isinstance(pattern, NofM) and bool((keep.view(-1, pattern.m).sum(dim=1) != pattern.n).any()):
        raise NumericalFailure(f"{name}: a group does not keep {pattern.n} of {pattern.m}")


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
