"""Whole blocks: Men et al., "ShortGPT", arXiv 2403.03853; one run of blocks: Gromov et al., arXiv 2403.17887.

BI_l     = 1 - mean over tokens of cos(h_l, h_{l+1}),  h_l the input of block l;   the lowest go, all at once
rescore  : one goes, the others are measured again
contiguous: the run of n blocks with the smallest mean of arccos(cos(h_l, h_{l+n})) / pi at the last token

The cosine with a zero vector is 0.
"""

from __future__ import annotations

import torch


def lowest(influence: torch.Tensor, n_drop: int) -> torch.Tensor:
    """Return the blocks that go, int64 ascending; of equals the first.

    Args:
        influence: [blocks].
        n_drop: How many go.
    """
    return influence.cpu().argsort(stable=True)[:n_drop].sort().values


def run_of(ends: torch.Tensor, n_drop: int) -> torch.Tensor:
    """Return the run of blocks that turns the last token's state least, int64 ascending.

    Args:
        ends: float32 [blocks + 1, samples, d], the last token's state before every block and after the last.
        n_drop: Length of the run.
    """
    cosines = torch.nn.functional.cosine_similarity(ends[:-n_drop], ends[n_drop:], dim=-1)
    angles = cosines.double().clamp(-1, 1).arccos().mean(dim=1)
    start = int(angles.argmin())
    return torch.arange(start, start + n_drop)
