"""An attention whose other weights are final is computed once per batch; later passes of the same states apply its output matrix alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pruning_core.engine.blocks import replaced_forward


class Replay:
    """What one attention puts out on some states, in the order of their batches.

    Inputs of its output matrix are kept while that one is looked at; once it is final too, they are turned into outputs.

    Args:
        attention: A module that puts out a tuple of its result and its probabilities.
        output: Its last matrix, whose output is that result.
        batches: How many there are; every pass takes all of them.
    """

    def __init__(self, attention: nn.Module, output: nn.Module, batches: int) -> None:
        self._attention = attention
        self._output = output
        self._batches = batches
        self._kept: list[torch.Tensor] = []
        self._done = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what one pass gives to the output matrix."""

        def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            self._kept.append(args[0])

        handle = self._output.register_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Let one pass take the outputs; whatever went by zeros since is left out by the zeros of the output matrix."""
        assert len(self._kept) == self._batches
        at = 0

        def forward(*_args: Any, **_kwargs: Any) -> tuple[torch.Tensor, None]:
            nonlocal at
            if at == self._done:
                self._kept[at] = self._output(self._kept[at])
                self._done += 1
            at += 1
            return self._kept[at - 1], None

        with replaced_forward(self._attention, forward):
            yield
