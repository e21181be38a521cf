"""SparseGPT: Frantar, Alistarh, "Massive Language Models Can be Accurately Pruned in One-Shot", arXiv 2301.00774.

H = G + lambda I,  G = mean of x x^T,  lambda = damp * mean(diag G);  U = upper Cholesky factor of H^-1
columns in spans of `block`: within a span the smallest W_ij^2 / U_jj^2 go (n:m: chosen per group, from updated weights);
    then column by column  e = W_:j / U_jj where removed, else 0;  W_:k -= e U_jk for the columns k after j

The mask of a span is chosen over all rows together (`matrix`), per row (`row`), or per group (`n:m`).
Quotas are carried from span to span, so that the total is exact; the authors remove one more per span, and all ties.
Departure: the authors zero every column whose input never fires and set its diagonal to 1. Here the damping alone makes
such columns the cheapest, so they go first while the count stays exact.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pruning_core.numerics.importance import active_magnitude
from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.linear_algebra import damped_cholesky, damping
from pruning_core.selection.masks import Selector
from pruning_core.spec.element_methods import SparseGPT
from pruning_core.spec.patterns import NofM, Row

NEEDS: tuple[str, ...] = ("gram",)
PANEL = 32
"""Columns that are eliminated one by one before the rest of the span is updated with one product."""


def score(weight: torch.Tensor, stats: Stats, params: SparseGPT) -> torch.Tensor:
    """Return Wanda's importance of every weight, [out, in]: it orders channels before they are permuted."""
    return active_magnitude(weight, stats)


def prune(
    weight: torch.Tensor, stats: Stats, select: Selector, params: SparseGPT
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight [out, in] with survivors updated and the rest zero, and the mask of what stays."""
    upper = stats.once(("inverse factor", params.damp), lambda: _inverse_factor(stats, params.damp))
    rows, width = weight.shape
    columns = weight.T.clone(memory_format=torch.contiguous_format)  # [in, out]
    keep_mask = torch.ones_like(columns, dtype=torch.bool)
    removed = 0
    for start in range(0, width, params.block):
        stop = min(start + params.block, width)
        span = slice(start, stop)
        if not isinstance(select.pattern, NofM):
            share = _share(select, rows, stop, width)
            scores = (columns[span] / upper.diagonal()[span, None]).square()
            keep_mask[span] = _span_mask(scores, select, share - removed)
            removed = share
        errors = _eliminate(columns[span], keep_mask[span], upper[span, span], select)
        columns[stop:].addmm_(upper[span, stop:].T, errors, alpha=-1)
    return columns.T.contiguous(), keep_mask.T.contiguous()


def _inverse_factor(stats: Stats, damp: float) -> torch.Tensor:
    """Return U, upper triangular with U^T U = (G + lambda I)^-1, [in, in].

    With J the reversal of order and L the Cholesky factor of J H J, R = J L J is upper triangular and H = R R^T, so
    U = R^-1: one factorisation and one triangular inverse.
    """
    assert stats.gram is not None
    reversed_gram = stats.gram.flip(0, 1)
    upper = damped_cholesky(reversed_gram, damping(reversed_gram, damp)).flip(0, 1)
    identity = torch.eye(len(upper), device=upper.device)
    inverse: torch.Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return inverse


def _span_mask(scores: torch.Tensor, select: Selector, removed: int) -> torch.Tensor:
    """Choose a span's mask [span, out] so that `removed` weights go from it."""
    return replace(select, count=removed).keep_mask(scores.T).T


def _share(select: Selector, rows: int, stop: int, width: int) -> int:
    """Return how many weights of the first `stop` of `width` columns go.

    Per row it is the same number from each, unless the columns that are left could not hold the rest.
    """
    total = select.total((rows, width))
    share = total * stop // width
    if isinstance(select.pattern, Row) and stop < width:
        share -= share % rows
    return max(share, total - rows * (width - stop))


def _eliminate(
    columns: torch.Tensor, keep_mask: torch.Tensor, upper: torch.Tensor, select: Selector
) -> torch.Tensor:
    """Remove a span's weights column by column, in place, and return what that costs per column, [span, out].

    Args:
        columns: [span, out], updated.
        keep_mask: [span, out]; for n:m it is chosen here, group by group.
        upper: [span, span].
        select: Which pattern.
    """
    errors = torch.zeros_like(columns)
    diagonal = upper.diagonal().tolist()
    m = select.pattern.m if isinstance(select.pattern, NofM) else 1
    panel = m * max(1, PANEL // m)
    for start in range(0, len(columns), panel):
        stop = min(start + panel, len(columns))
        for i in range(start, stop):
            if m > 1 and i % m == 0:
                group = slice(i, i + m)
                saliency = (columns[group] / upper.diagonal()[group, None]).square()
                keep_mask[group] = select.keep_mask(saliency.T).T
            torch.div(columns[i].masked_fill(keep_mask[i], 0), diagonal[i], out=errors[i])
            columns[i + 1 : stop].addr_(upper[i, i + 1 : stop], errors[i], alpha=-1)
        columns[stop:].addmm_(upper[start:stop, stop:].T, errors[start:stop], alpha=-1)
    columns.masked_fill_(~keep_mask, 0)
    return errors
