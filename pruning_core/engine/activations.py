"""Hidden states of a set of windows on their way through the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from pruning_core.engine import device as devices
from pruning_core.engine.blocks import Call, run, shared
from pruning_core.engine.model import StreamedModel
from pruning_core.engine.numerics import all_finite
from pruning_core.errors import NumericalFailure


class Activations:
    """Holds one hidden state per batch, [batch, seq, dim], and moves all of them one block further at a time.

    Args:
        model: Provides embeddings and the blocks' arguments.
        tokens: int64 [windows, seq].
        batch_tokens: Tokens per forward pass, by default what suits the device; a window is never cut.
        alive: Called after every batch.
    """

    def __init__(
        self,
        model: StreamedModel,
        tokens: torch.Tensor,
        *,
        batch_tokens: int | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._alive = alive
        per_pass = batch_tokens or devices.batch_tokens(model.device)
        self.tokens = list(torch.split(tokens, max(1, per_pass // tokens.shape[1])))
        self.hidden: list[torch.Tensor] = []
        self._calls: list[list[Call]] = []
        for batch in self.tokens:
            hidden, calls = model.embed(batch)
            previous = self._calls[-1] if self._calls else calls
            self.hidden.append(hidden)
            self._calls.append([shared(*pair) for pair in zip(calls, previous, strict=True)])

    def inputs(self, index: int) -> Iterator[tuple[torch.Tensor, Call]]:
        """Yield the hidden states [batch, seq, dim] and the block's other arguments, batch by batch."""
        for hidden, calls in zip(self.hidden, self._calls, strict=True):
            yield hidden, calls[index]
            self._alive()

    def advance(self, index: int, block: nn.Module) -> None:
        """Replace every state by the block's output.

        Raises:
            NumericalFailure: an output is NaN or infinite.
        """
        for position, (hidden, call) in enumerate(self.inputs(index)):
            output = run(block, hidden, call)
            if not all_finite(output):
                raise NumericalFailure(f"block {index} puts out NaN or infinity on this text")
            self.hidden[position] = output
