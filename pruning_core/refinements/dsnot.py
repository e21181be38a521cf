"""DSnoT: Zhang, Zhao, Lin, Sun, Yao, Han, Tanner, Liu, Ji, "Dynamic Sparse No Training", arXiv 2310.08915.

c = W * m,  err = sum of c over the removed entries of a row       (m, v, q: mean, variance, mean square of the input)
grow:  removed entries whose c has the sign of err, largest |c| / v^p first
prune: kept entries whose c has the other sign, smallest |W| * sqrt(q) first
swap:  err becomes err - c[grown] + c[pruned];  at most `max_cycles` swaps, until |err| <= tolerance, a queue is empty,
       or the swap would give err another sign than it had at first (`sign_check`)
n:m:   the pruned entry is the one with the smallest |W| * sqrt(q) of those that came in kept in the grown one's group,
       whatever the sign of its c, so that |err| may rise; the sign is always checked

W is the dense weight throughout. Survivors keep the values with which they came, grown entries return as dense ones.

`relative` follows an idea of Yi, Richtarik, "Symmetric Pruning of Large Language Models", arXiv 2501.18980, whose exact
form is not known to us; this is our reading. With A = |W| and its row and column sums R and C, either criterion becomes
    grow:  (A / R + A / C) * |m|^0.5 / v^p        prune:  (A / R + A / C) * sqrt(q)^0.5
while signs and err stay those of c.

Departures from the authors' code: the sign is checked unless asked otherwise (theirs ships with the check off); an
exhausted queue stops the row, where theirs walks on into entries that are no candidates; rows may have unequal counts;
err and its tolerance are means per token, not sums; v is the variance over all tokens, floored at 1e-12 of its mean;
in n:m the smallest |W| * sqrt(q) goes, whatever method made the mask.
"""

from __future__ import annotations

import torch

from pruning_core.numerics.importance import active_magnitude, active_relative_importance
from pruning_core.numerics.input_statistics import Stats
from pruning_core.selection.masks import Selector
from pruning_core.spec.composition import Dsnot
from pruning_core.spec.patterns import NofM

NEEDS: tuple[str, ...] = ("column_mean", "column_mean_square", "column_variance")

EXPONENT = 0.5
"""Of the activations, where relative importance takes the place of magnitude."""


def refine(
    dense: torch.Tensor,
    weight: torch.Tensor,
    keep_mask: torch.Tensor,
    stats: Stats,
    select: Selector,
    params: Dsnot,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and mask after the swaps, both [out, in]; every row keeps as many entries as it had."""
    assert stats.column_mean is not None
    tolerance = 0.1 / stats.window if params.tolerance is None else params.tolerance
    contribution = dense * stats.column_mean
    error = contribution.masked_fill(keep_mask, 0).sum(dim=1)
    first = error.sign()
    checked = params.sign_check or isinstance(select.pattern, NofM)
    sides = [first] if checked else [-torch.ones_like(first), torch.ones_like(first)]
    candidates = _Candidates(dense, contribution, keep_mask, stats, select, params, sides)
    result = keep_mask.clone()
    rows = torch.arange(len(dense), device=dense.device)
    for _ in range(params.max_cycles):
        side = torch.zeros_like(rows) if checked else (error > 0).long()
        grown, pruned = candidates.next(rows, side)
        new = error - contribution[rows, grown] + contribution[rows, pruned]
        moves = (error.abs() > tolerance) & (grown >= 0) & (pruned >= 0)
        if checked:
            moves &= new.sign() == first[rows]
        rows, error, side = rows[moves], new[moves], side[moves]
        if not len(rows):
            break
        grown, pruned = grown[moves], pruned[moves]
        result[rows, grown], result[rows, pruned] = True, False
        candidates.take(rows, side, pruned)
    return torch.where(result & ~keep_mask, dense, weight * result), result


class _Candidates:
    """What each row may grow and prune next: int64 columns, -1 where there is nothing left.

    Args:
        dense: float32 [out, in].
        contribution: c, [out, in].
        keep_mask: The mask that came in, [out, in].
        stats: Of the input.
        select: Its pattern decides what is pruned for a grown entry.
        params: Parameters.
        sides: Signs of err that the rows may meet, each [out]; one pair of queues is made for each.
    """

    def __init__(
        self,
        dense: torch.Tensor,
        contribution: torch.Tensor,
        keep_mask: torch.Tensor,
        stats: Stats,
        select: Selector,
        params: Dsnot,
        sides: list[torch.Tensor],
    ) -> None:
        gain, cost = _gain(dense, contribution, stats, params), _cost(dense, stats, params)
        depth = min(params.max_cycles, dense.shape[1])
        towards = [contribution * side[:, None] for side in sides]
        self._used = torch.zeros(len(sides), len(dense), dtype=torch.long, device=dense.device)
        self._grow = torch.stack(
            [_queue(gain, ~keep_mask & (direction > 0), depth) for direction in towards]
        )
        self._grouped = isinstance(select.pattern, NofM)
        if isinstance(select.pattern, NofM):
            cost = cost.masked_fill(~keep_mask, torch.inf)
            self._cost = cost.reshape(len(dense), -1, select.pattern.m)
        else:
            self._prune = torch.stack(
                [_queue(-cost, keep_mask & (direction < 0), depth) for direction in towards]
            )

    def next(self, rows: torch.Tensor, side: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the columns to grow and to prune in `rows`, whose err has the sign of `side`; all [rows]."""
        at = self._used[side, rows]
        grown = self._grow[side, rows, at]
        if not self._grouped:
            return grown, self._prune[side, rows, at]
        size = self._cost.shape[2]
        group = grown.div(size, rounding_mode="floor")
        cost, place = self._cost[rows, group].min(dim=1)
        return grown, (group * size + place).masked_fill(cost.isinf(), -1)

    def take(self, rows: torch.Tensor, side: torch.Tensor, pruned: torch.Tensor) -> None:
        """Move on past the entries last returned in `rows`."""
        self._used[side, rows] += 1
        if self._grouped:
            size = self._cost.shape[2]
            self._cost[rows, pruned // size, pruned % size] = torch.inf


def _gain(
    dense: torch.Tensor, contribution: torch.Tensor, stats: Stats, params: Dsnot
) -> torch.Tensor:
    """Return the size of the growing criterion, [out, in]."""
    assert stats.column_mean is not None
    assert stats.column_variance is not None
    if params.relative == "grow":
        importance = active_relative_importance(dense, stats, exponent=0)
        size = importance * stats.column_mean.abs().pow(EXPONENT)
    else:
        size = contribution.abs()
    mean = stats.column_variance.mean()
    scaled = stats.column_variance / mean if mean > 0 else torch.ones_like(stats.column_variance)
    return size / scaled.clamp(min=1e-12).pow(params.variance_exponent)


def _cost(dense: torch.Tensor, stats: Stats, params: Dsnot) -> torch.Tensor:
    """Return the pruning criterion, [out, in]."""
    if params.relative == "prune":
        return active_relative_importance(dense, stats, EXPONENT)
    return active_magnitude(dense, stats)


def _queue(value: torch.Tensor, usable: torch.Tensor, depth: int) -> torch.Tensor:
    """Return the columns of the `depth` largest usable values of each row, largest first: int64 [out, depth]."""
    best = value.masked_fill(~usable, -torch.inf).topk(depth, dim=1)
    return best.indices.masked_fill(best.values == -torch.inf, -1)
