"""An attention or feed-forward whose other weights are final is computed once per batch; later passes of the same states apply its last matrix alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pruning_core.model.block_calls import replaced_forward
from pruning_core.model.recorder import watching_input


class Replay:
    """What one module puts out on some states, in the order of their batches.

    Inputs of its last matrix are kept while that one is looked at; once it is final too, they are turned into outputs.

    Args:
        module: An attention or a feed-forward.
        last: Its last matrix, whose output is its result.
        batches: How many there are; every pass takes all of them.
        in_tuple: Whether the module puts out a tuple of its result and, as attentions do, its probabilities.
    """

    def __init__(self, module: nn.Module, last: nn.Module, batches: int, *, in_tuple: bool) -> None:
        self._module = module
        self._last = last
        self._batches = batches
        self._in_tuple = in_tuple
        self._kept: list[torch.Tensor] = []
        self._done = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what one pass gives to the last matrix."""
        with watching_input(self._last, self._kept.append):
            yield

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Let one pass take the outputs; whatever went by zeros since is left out by the zeros of the last matrix."""
        assert len(self._kept) == self._batches
        at = 0

        def forward(*_args: Any, **_kwargs: Any) -> Any:
            nonlocal at
            if at == self._done:
                self._kept[at] = self._last(self._kept[at])
                self._done += 1
            at += 1
            result = self._kept[at - 1]
            return (result, None) if self._in_tuple else result

        with replaced_forward(self._module, forward):
            yield
