"""How a block is called: its true arguments are recorded once, then replayed with other hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning_core.errors import NothingMatched


@dataclass(frozen=True)
class Call:
    """Everything a block receives beside the hidden states: masks, positions, rotary embeddings."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class CallRecorder:
    """Stands in for every block of one forward pass: notes the arguments, passes hidden states through."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._first: torch.Tensor | None = None

    def record(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take the place of a block's forward."""
        if self._first is None:
            self._first = hidden
        self.calls.append(Call(args, kwargs))
        return hidden

    def first_hidden(self) -> torch.Tensor:
        """Return the input of the first block, [batch, seq, dim]."""
        if self._first is None:
            raise NothingMatched("the model's forward pass called none of its blocks")
        return self._first


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give one module another forward for a while; its attributes stay visible to the model around it."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def run(block: nn.Module, hidden: torch.Tensor, call: Call) -> torch.Tensor:
    """Return the block's output [batch, seq, dim]; transformers 5 blocks return a tensor, older ones a tuple."""
    output = block(hidden, *call.args, **call.kwargs)
    result: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return result


def shared(call: Call, previous: Call) -> Call:
    """Return `previous` where it equals `call`, so that batches of one shape keep one copy of their masks."""
    same = _equal(call.args, previous.args) and _equal(call.kwargs, previous.kwargs)
    return previous if same else call


def _equal(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.shape == right.shape and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)
