"""Contextual pruning (Mini-GPTs): Valicenti, Vidal, Patnaik, arXiv 2312.12682; code tval2/contextual-pruning.

On a domain's text, on the dense model:

unit    = mean over its channels and all tokens of |x_j|, x the read-out's input (after the activation, gate times up)
amount  : a threshold, absolute or relative to the mean over the units of the block, or the share that was asked for
tokens  : of relative frequency at most `token_threshold`, but special and byte tokens and what others are spelt from
zero mode, linear part: row i of every matrix goes if min(mean |y_i|, mean |y_i - b_i|) is at most the threshold,
          column j if mean |x_j| is

Departures: the authors write zeros, and hook ReLU and GELU only, so that nothing happens on SiLU models; here units are cut
out of every family. In `remove` mode the threshold gives one number for all blocks, the mean of what it would take from
each, because widths must be uniform. They calibrate and evaluate on the same text; here that is refused.
"""

from __future__ import annotations

import torch

from pruning_core.model.candidates import Candidates
from pruning_core.spec.unit_methods import Contextual

NEEDS = ("column_mean_abs",)
INPUT_NEEDS: tuple[str, ...] = ()


def score(group: Candidates, params: Contextual) -> torch.Tensor:
    """Return the importance of every unit, [size]."""
    quiet = group.at_readout.column_mean_abs
    assert quiet is not None
    return group.per_unit(quiet).mean(dim=1)


def below(scores: torch.Tensor, params: Contextual) -> torch.Tensor:
    """Mark what a threshold takes.

    Args:
        scores: [size], of one block.
        params: With a threshold.
    """
    if params.absolute is not None:
        return scores <= params.absolute
    assert params.relative is not None
    return scores <= params.relative * scores.mean()


def tokens_to_keep(counts: torch.Tensor, params: Contextual) -> torch.Tensor:
    """Mark the tokens that are frequent enough.

    Args:
        counts: int64 [vocabulary], in the calibration text.
        params: With the threshold.
    """
    return counts > params.token_threshold * int(counts.sum())
