"""Hidden states of a set of samples on their way through the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pruning_core.errors import NumericalFailure
from pruning_core.model.block_calls import Call, run, shared
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.linear_algebra import all_finite
from pruning_core.system import device as devices


@dataclass(frozen=True)
class Batch:
    """What goes through the model at once.

    Attributes:
        tokens: int64 [batch, seq].
        positions: int64 [batch, seq]; None for 0, 1, 2, ...
        visible: bool [batch, seq, seq], what each token sees; None for all that stands before it.
    """

    tokens: torch.Tensor
    positions: torch.Tensor | None = None
    visible: torch.Tensor | None = None


class Activations:
    """Holds one hidden state per batch, [batch, seq, dim], and moves all of them one block further at a time.

    Args:
        model: Provides embeddings and the blocks' arguments.
        tokens: int64 [samples, seq], several of these where samples differ in length, or batches as they shall go.
        batch_tokens: Tokens per forward pass, by default what suits the device; a sample is never cut.
        alive: Called after every batch.
    """

    def __init__(
        self,
        model: StreamedModel,
        tokens: torch.Tensor | Sequence[torch.Tensor] | Sequence[Batch],
        *,
        batch_tokens: int | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.alive = alive
        per_pass = batch_tokens or devices.batch_tokens(model.device)
        self.batches = list(_batches(tokens, per_pass))
        self.hidden: list[torch.Tensor] = []
        self._calls: list[list[Call]] = []
        for batch in self.batches:
            hidden, calls = model.embed(batch.tokens, batch.positions, batch.visible)
            previous = self._calls[-1] if self._calls else calls
            self.hidden.append(hidden)
            self._calls.append([shared(*pair) for pair in zip(calls, previous, strict=True)])
            alive()

    @property
    def seq_len(self) -> int:
        """Tokens of the longest sample."""
        return max(batch.tokens.shape[1] for batch in self.batches)

    def inputs(self, index: int) -> Iterator[tuple[torch.Tensor, Call]]:
        """Yield the hidden states [batch, seq, dim] and the block's other arguments, batch by batch."""
        for hidden, calls in zip(self.hidden, self._calls, strict=True):
            yield hidden, calls[index]
            self.alive()

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


def _batches(
    tokens: torch.Tensor | Sequence[torch.Tensor] | Sequence[Batch], per_pass: int
) -> Iterator[Batch]:
    for group in [tokens] if isinstance(tokens, torch.Tensor) else tokens:
        if isinstance(group, Batch):
            yield group
        else:
            yield from map(Batch, torch.split(group, max(1, per_pass // group.shape[1])))
