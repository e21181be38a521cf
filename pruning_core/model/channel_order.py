"""Orders of input channels under which n:m keeps more of the score.

Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play: An Efficient Post-training Pruning Method for LLMs", ICLR 2024.

1. Snake: channels by column sum, ascending, cut into m equal chunks; chunk p fills place p of every group, odd ones
   reversed.
2. Assignment, once for each place c: F are the m - 1 other scores of a group in one row, P the scores at c, and

   V[g, h] = sum over rows of (the n - 1 largest of F[g]) + max(n-th largest of F[g], P[h])

   is what group g retains when it receives group h's channel. Channels go to groups so that the sum of V is largest.

The authors insert, sort and sum for every pair of groups; the sum above is the same number. Their code may split wide
matrices into independent parts to save time; here every group takes part. If the result retains no more than the
order it began with, that order stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from pruning_core.errors import NumericalFailure, UnsupportedPattern
from pruning_core.families.base import Family, Fold
from pruning_core.model.matrix import Matrix
from pruning_core.numerics.linear_algebra import all_finite


def retained(score: torch.Tensor, n: int, m: int) -> float:
    """Return the sum of the n largest scores of every m consecutive ones in each row of [out, in]."""
    best = score.reshape(len(score), -1, m).topk(n).values
    return float(best.sum(dtype=torch.float64))


def channel_order(score: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """Return an order of channels that retains more, or the present one if none was found.

    Args:
        score: float32 [out, in], in the original order; m divides in.
        n: Weights kept in each group.
        m: Group size.

    Returns:
        int64 [in], the original channel at each new place: the permuted matrix is W[:, order].

    Raises:
        NumericalFailure: a score is NaN or infinite.
    """
    if not all_finite(score):
        raise NumericalFailure("a score is NaN or infinite")
    groups = _snake(score, m)
    for place in range(m):
        values = exchange_values(score[:, groups], n, place)
        groups[:, place] = groups[_assignment(values), place]
    order = groups.flatten()
    if retained(score[:, order], n, m) > retained(score, n, m):
        return order
    return torch.arange(len(order), device=score.device)


def exchange_values(groups: torch.Tensor, n: int, place: int) -> torch.Tensor:
    """Return the score that group g retains if it receives group h's channel at one place, float64 [g, h].

    The sum of maxima is half of (sum of both + their L1 distance), which needs no temporary of rows x g x h.

    Args:
        groups: float32 [out, g, m].
        n: Weights kept in each group, less than m.
        place: Position within the groups, 0 to m - 1.
    """
    others = torch.cat((groups[..., :place], groups[..., place + 1 :]), dim=-1)
    best = others.topk(n).values
    threshold, moving = best[..., -1].T.contiguous(), groups[..., place].T.contiguous()
    distance = torch.cdist(threshold, moving, p=1).double()
    certain = best[..., :-1].sum(dim=(0, 2), dtype=torch.float64)
    sums = [scores.sum(dim=1, dtype=torch.float64) for scores in (threshold, moving)]
    return certain[:, None] + (sums[0][:, None] + sums[1] + distance) / 2


def _snake(score: torch.Tensor, m: int) -> torch.Tensor:
    """Return the channels of every group, int64 [g, m]."""
    chunks = score.sum(dim=0, dtype=torch.float64).argsort(stable=True).view(m, -1)
    chunks[1::2] = chunks[1::2].flip(1)
    return chunks.T.contiguous()


def _assignment(values: torch.Tensor) -> torch.Tensor:
    """Return the h for every g that makes the sum of float64 [g, h] largest.

    Centred rows and columns have the same solution, which is found many times sooner.
    """
    centred = values - values.mean(dim=1, keepdim=True)
    centred -= centred.mean(dim=0)
    _, columns = linear_sum_assignment(centred.cpu().numpy(), maximize=True)
    return torch.from_numpy(columns).to(values.device)


def fold_of(family: Family, name: str) -> Fold | None:
    """Return the fold whose reader is the matrix `name`, with that matrix's expert for `*`, or None."""
    for fold in family.folds:
        pattern = re.escape(fold.reader).replace(r"\*", r"(\d+)")
        if match := re.fullmatch(pattern, name):
            expert = match[1] if match.groups() else "*"
            writers = tuple(writer.replace("*", expert) for writer in fold.writers)
            return Fold(name, writers, fold.heads)
    return None


@dataclass(frozen=True)
class AbsorbedPermutation:
    """One matrix of a block and the matrices that absorb an order of its inputs.

    Attributes:
        reader: The matrix whose inputs are put in order, [out, in].
        writers: The matrices that make those inputs.
        width: Channels that are put in order together: those of one head, else all inputs.
    """

    reader: Matrix
    writers: tuple[Matrix, ...]
    width: int

    @property
    def groups(self) -> int:
        """Key-value groups, each with an order of its own; 1 where the inputs are no heads."""
        return self.writers[0].shape[0] // self.width

    def order(self, score: torch.Tensor, n: int, m: int) -> torch.Tensor:
        """Return the best order found that the writers can absorb, int64 [in].

        Args:
            score: float32 [out, in], of the reader, in the original order.
            n: Weights kept in each group.
            m: Group size.

        Raises:
            UnsupportedPattern: m does not divide the channels that are put in order together.
            NumericalFailure: a score is NaN or infinite.
        """
        if self.width % m:
            raise UnsupportedPattern(
                f"{self.reader.name} takes orders of {self.width} channels, which groups of {m} do not divide",
                suggestions=("permute: none",),
            )
        heads = score.reshape(len(score), self.groups, -1, self.width).unbind(1)
        orders = [channel_order(head.flatten(0, 1), n, m) for head in heads]
        return self._spread(torch.stack(orders))

    def reorder_writers(self, order: torch.Tensor) -> tuple[nn.Module, ...]:
        """Put the writers' rows and biases in the order that the reader's inputs get.

        The block's function stays what it was once the reader's columns are permuted to W[:, order].

        Args:
            order: int64 [in], as `order()` returns it.

        Returns:
            The modules whose bias changed.
        """
        within = order.view(self.groups, -1, self.width)[:, 0] % self.width
        assert torch.equal(order, self._spread(within)), "the writers cannot absorb this order"
        starts = torch.arange(self.groups, device=order.device)[:, None] * self.width
        rows = (starts + within).flatten()
        return tuple(
            dict.fromkeys(bias for writer in self.writers for bias in _reorder(writer, rows))
        )

    def _spread(self, within: torch.Tensor) -> torch.Tensor:
        """Return the order of all inputs, [in], from the order within each key-value group, [groups, width]."""
        inputs = self.reader.shape[1]
        starts = torch.arange(0, inputs, self.width, device=within.device)
        return (starts.view(self.groups, -1, 1) + within[:, None]).flatten()


def absorbed_permutation(
    reader: Matrix, matrices: Iterable[Matrix], family: Family, config: Any
) -> AbsorbedPermutation | None:
    """Return how an order of a matrix's inputs folds into its block, or None where it does not.

    Args:
        reader: One of `matrices`.
        matrices: All matrices of the block.
        family: Of the model.
        config: Of the model.
    """
    fold = fold_of(family, reader.name)
    if fold is None:
        return None
    named = {matrix.name: matrix for matrix in matrices}
    heads = config.num_attention_heads if fold.heads else 1
    return AbsorbedPermutation(
        reader, tuple(named[name] for name in fold.writers), reader.shape[1] // heads
    )


def _reorder(writer: Matrix, rows: torch.Tensor) -> tuple[nn.Module, ...]:
    """Permute a matrix's rows and bias in place; return its module if it has a bias."""
    writer.view.copy_(writer.view[rows])
    whole: Any = writer.module.bias
    if whole is None:
        return ()
    bias = whole.data[writer.start : writer.stop]
    bias.copy_(bias[rows])
    return (writer.module,)
