"""An attention whose weights are final is computed once per batch; later passes of the same states take its outputs again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pruning_core.engine.blocks import replaced_forward


class Replay:
    """The outputs of one attention on some states, in the order of their batches.

    Args:
        attention: A module that puts out a tuple of its result and its probabilities.
        batches: How many there are; every pass takes all of them.
    """

    def __init__(self, attention: nn.Module, batches: int) -> None:
        self._attention = attention
        self._batches = batches
        self._outputs: list[torch.Tensor] = []
        self._at = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Let one pass compute the outputs, or take them."""
        original, self._at = self._attention.forward, 0

        def forward(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
            if len(self._outputs) < self._batches:
                self._outputs.append(original(*args, **kwargs)[0])
            self._at += 1
            return self._outputs[self._at - 1], None

        with replaced_forward(self._attention, forward):
            yield
