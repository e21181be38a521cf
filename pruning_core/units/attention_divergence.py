"""How unlike the attention of two heads is: Jensen-Shannon divergence, averaged over samples and rows."""

from __future__ import annotations

import torch
from torch import nn

from pruning_core.families.base import Family
from pruning_core.model.hidden_states import Activations
from pruning_core.model.recorder import passes, watching_output
from pruning_core.structure.layout import Layout


def divergences(attention: torch.Tensor) -> torch.Tensor:
    """Return JS(a_i || a_j) = H((a_i + a_j) / 2) - (H(a_i) + H(a_j)) / 2, natural logarithm, summed over samples, meaned over rows.

    Args:
        attention: float32 [samples, heads, rows, columns], rows sum to 1.

    Returns:
        float32 [heads, heads], symmetric, 0 on the diagonal, at most ln 2 times the samples.
    """
    heads = attention.shape[1]
    entropy = _entropy(attention)
    upper = torch.zeros(heads, heads, device=attention.device)
    for first in range(heads - 1):
        others = attention[:, first + 1 :]
        mixed = _entropy((attention[:, first : first + 1] + others) / 2)
        mean = (entropy[:, first : first + 1] + entropy[:, first + 1 :]) / 2
        upper[first, first + 1 :] = (mixed - mean).clamp_min(0).mean(dim=2).sum(dim=0)
    return upper + upper.T


def of_groups(heads: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the mean over all pairs of two groups' heads, [groups, groups]; 0 on the diagonal.

    Args:
        heads: [heads, heads]; the heads of a group lie side by side.
        groups: How many there are.
    """
    each = len(heads) // groups
    means: torch.Tensor = heads.view(groups, each, groups, each).mean(dim=(1, 3))
    return means.masked_fill(torch.eye(groups, dtype=torch.bool, device=means.device), 0)


def _entropy(rows: torch.Tensor) -> torch.Tensor:
    entropy: torch.Tensor = torch.special.entr(rows).sum(dim=-1)
    return entropy


class RunningDivergence:
    """The divergence of one attention's heads, summed over the samples that went through."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._samples = 0

    def see(self, attention: torch.Tensor) -> None:
        """Add attention probabilities, [samples, heads, rows, columns]."""
        for sample in torch.split(attention, 1):  # one by one: several copies of it are made
            more = divergences(sample.float())
            self._sum = more if self._sum is None else self._sum + more
        self._samples += len(attention)

    def result(self, groups: int) -> torch.Tensor:
        """Return the mean between groups, [groups, groups]."""
        assert self._sum is not None
        return of_groups(self._sum / self._samples, groups)


def head_divergence(
    index: int, block: nn.Module, family: Family, states: Activations, layout: Layout
) -> torch.Tensor:
    """Return the divergence between the attention of key-value groups, [groups, groups], in one pass of its own.

    The statistics' pass ends a block early, inside of the attention.
    """
    attention = block.get_submodule(family.attention.output.rpartition(".")[0])
    divergence = RunningDivergence()

    def see(output: tuple[torch.Tensor, torch.Tensor]) -> None:
        _result, probabilities = output  # of an eager attention
        divergence.see(probabilities)

    with watching_output(attention, see):
        for _ in passes(index, block, states):
            pass
    return divergence.result(layout.sizes.kv_groups)
