"""Perplexity, streamed: every block is read once for all windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from pruning_core.errors import NumericalFailure
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.prune.walk import forward

PASS_TOKENS = 1 << 16
"""Tokens on their way through the blocks at once; beyond it the blocks are read again."""
LOGITS_PER_CHUNK = 1 << 25
"""Logits held at once: 128 MiB in float32."""


def perplexity(
    model: StreamedModel,
    tokens: torch.Tensor | Sequence[torch.Tensor],
    block_done: Callable[[float], None] = lambda _share: None,
    *,
    alive: Callable[[], None] = lambda: None,
    prepare: Callable[[int, nn.Module], None] = lambda _index, _block: None,
) -> float:
    """Return exp of the mean of `token_losses`.

    Raises:
        NumericalFailure: the loss is not finite.
    """
    return exp_mean(token_losses(model, tokens, block_done, alive=alive, prepare=prepare))


def token_losses(
    model: StreamedModel,
    tokens: torch.Tensor | Sequence[torch.Tensor],
    block_done: Callable[[float], None] = lambda _share: None,
    *,
    alive: Callable[[], None] = lambda: None,
    prepare: Callable[[int, nn.Module], None] = lambda _index, _block: None,
) -> list[torch.Tensor]:
    """Return the negative log-likelihood of every window's last seq-1 tokens, one [seq-1] float64 per window.

    Args:
        model: The model.
        tokens: int64 [windows, seq], or several of these; windows do not see each other.
        block_done: Called with the share that is done, after each block.
        alive: Called often in between.
        prepare: Called with each block before it is used, and free to change its weights for this once.
    """
    groups = [tokens] if isinstance(tokens, torch.Tensor) else tokens
    parts = [
        part
        for group in groups
        for part in torch.split(group, max(1, PASS_TOKENS // group.shape[1]))
    ]
    losses = []
    for number, part in enumerate(parts):
        states = Activations(model, part, alive=alive)

        def report_share(index: int, number: int = number) -> None:
            block_done((number + (index + 1) / len(model.blocks)) / len(parts))

        forward(model, states, report_share, prepare)
        for batch, hiddens in zip(states.batches, states.hidden, strict=True):
            for window, hidden in zip(batch.tokens, hiddens, strict=True):
                losses.append(_losses(model, window[None], hidden[None]))
                alive()
    return losses


def exp_mean(losses: Sequence[torch.Tensor]) -> float:
    """Return exp of the mean over all tokens.

    Raises:
        NumericalFailure: the loss is not finite.
    """
    loss = sum(float(part.sum()) for part in losses) / sum(part.numel() for part in losses)
    if not math.isfinite(loss) or loss > 700:
        raise NumericalFailure(f"the evaluation loss is {loss}")
    return math.exp(loss)


def _losses(model: StreamedModel, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the losses of one window."""
    targets = tokens[0, 1:].to(model.device)
    chunk = max(1, LOGITS_PER_CHUNK // int(model.config.vocab_size))
    losses = []
    for positions in torch.split(torch.arange(len(targets)), chunk):
        logits = model.logits(tokens, hidden, positions)[0].float()
        wanted = targets[positions.to(targets.device)]
        losses.append(functional.cross_entropy(logits, wanted, reduction="none").double().cpu())
    return torch.cat(losses)
