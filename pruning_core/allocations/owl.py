"""OWL: Yin, Wu, Zhang, Hsieh, Wang, Jia, Pechenizkiy, Liang, Wang, Liu, arXiv 2310.05175.

D_l = share of the Wanda scores of block l, all its matrices together, above M x their mean       (M = 5)
r = (D - min D) / (max D - min D) * 2 lambda, 0 if all are equal;  ratio_l = s - (r_l - mean r)   (lambda = 0.08)
then shifted and clipped to a mean of exactly s, weighted by the blocks' sizes

Departures from the authors' code: blocks may differ in size, where theirs takes the plain mean; ratios are clipped to
[0, 0.95] with the mean kept, where theirs sets those at or below 0 to 0.01; M is 5 as in the published commands, where
the code's default is 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from pruning_core.numerics.importance import active_magnitude
from pruning_core.numerics.input_statistics import Stats
from pruning_core.selection.ratios import bounded
from pruning_core.spec.composition import Owl

NEEDS: tuple[str, ...] = ("column_mean_square",)


def measure(matrices: Iterable[tuple[torch.Tensor, Stats]], params: Owl) -> float:
    """Return D of one block.

    Args:
        matrices: Weight [out, in] and statistics of the input, one after another.
        params: Parameters.
    """
    scores = [active_magnitude(weight, stats) for weight, stats in matrices]
    return outliers(scores, params.threshold)


def outliers(scores: Sequence[torch.Tensor], threshold: float) -> float:
    """Return the share of one block's scores above `threshold` x their mean.

    Args:
        scores: Of the block's matrices, each [out, in].
        threshold: M.
    """
    count = sum(score.numel() for score in scores)
    limit = threshold * sum(float(score.sum()) for score in scores) / count
    return sum(int((score > limit).sum()) for score in scores) / count


def ratios(
    outliers: Sequence[float], weights: Sequence[int], ratio: float, params: Owl
) -> list[float]:
    """Return the ratio of every block: the more outliers, the lower.

    Args:
        outliers: D, per block.
        weights: Prunable weights of each block.
        ratio: s.
        params: Parameters.
    """
    spread = max(outliers) - min(outliers)
    scale = 2 * params.spread / spread if spread else 0.0
    return bounded([-scale * share for share in outliers], weights, ratio)
