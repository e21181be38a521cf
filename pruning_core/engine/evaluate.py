"""Perplexity, streamed: every block is read once for all windows."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from pruning_core.engine.activations import Activations
from pruning_core.engine.model import StreamedModel
from pruning_core.errors import NumericalFailure

LOGITS_PER_CHUNK = 1 << 25
"""Logits held at once: 128 MiB in float32."""


def perplexity(
    model: StreamedModel,
    tokens: torch.Tensor,
    block_done: Callable[[int], None],
    *,
    alive: Callable[[], None] = lambda: None,
    prepare: Callable[[int, nn.Module], None] = lambda _index, _block: None,
) -> float:
    """Return exp of the mean negative log-likelihood over every window's last seq-1 tokens.

    Args:
        model: The model.
        tokens: int64 [windows, seq], windows do not see each other.
        block_done: Called with each block's index.
        alive: Called often in between.
        prepare: Called with each block before it is used, and free to change its weights for this once.

    Raises:
        NumericalFailure: the loss is not finite.
    """
    states = Activations(model, tokens, alive=alive)
    for index in range(len(model.blocks)):
        with model.block(index) as block:
            prepare(index, block)
            states.advance(index, block)
        block_done(index)
    total = 0.0
    for batch, hiddens in zip(states.tokens, states.hidden, strict=True):
        for window, hidden in zip(batch, hiddens, strict=True):
            total += _loss(model, window[None], hidden[None])
            alive()
    loss = total / (tokens.shape[0] * (tokens.shape[1] - 1))
    if not math.isfinite(loss) or loss > 700:
        raise NumericalFailure(f"the evaluation loss is {loss}")
    return math.exp(loss)


def _loss(model: StreamedModel, tokens: torch.Tensor, hidden: torch.Tensor) -> float:
    """Return the summed loss of one window."""
    targets = tokens[0, 1:].to(model.device)
    chunk = max(1, LOGITS_PER_CHUNK // int(model.config.vocab_size))
    total = 0.0
    for positions in torch.split(torch.arange(len(targets)), chunk):
        logits = model.logits(tokens, hidden, positions)[0].float()
        total += float(
            functional.cross_entropy(logits, targets[positions.to(targets.device)], reduction="sum")
        )
    return total
