"""What is seen of a block while samples pass through it: the one place that sets hooks and that ends a pass early."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn

from pruning_core.model.block_calls import run
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup
from pruning_core.numerics.input_statistics import Collector, Stats


class _EnoughSeenError(Exception):
    """What comes after it in the block is not needed."""


@contextmanager
def watching_input(
    module: nn.Module, see: Callable[[torch.Tensor], None], *, ends_pass: bool = False
) -> Iterator[None]:
    """Show `see` what a module is given, [..., in], before it runs.

    Args:
        module: Anywhere in a block.
        see: Called once per call of the module.
        ends_pass: The block is left there, by `passes` alone.
    """

    def hook(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        see(args[0])
        if ends_pass:
            raise _EnoughSeenError

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watching_output(module: nn.Module, see: Callable[[Any], None]) -> Iterator[None]:
    """Show `see` what a module puts out, a tensor or a tuple, after it ran."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        see(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def passes(index: int, block: nn.Module, states: Activations) -> Iterator[torch.Tensor]:
    """Run a block on one batch after another, for those who watch; the states stay where they are.

    Args:
        index: Which block.
        block: Its module.
        states: Of the windows before the block.

    Yields:
        What the block was given, [batch, seq, dim], after it ran.
    """
    for hidden, call in states.inputs(index):
        with suppress(_EnoughSeenError):
            run(block, hidden, call)
        yield hidden


def record(
    index: int,
    block: nn.Module,
    groups: Sequence[InputGroup],
    states: Activations,
    needs: Sequence[Iterable[str]],
) -> list[Stats]:
    """Return usable statistics of every group's input, also where it is dead; the states stay where they are.

    Args:
        index: Which block.
        block: Its module.
        groups: Inputs to look at, in order of execution.
        states: Of the windows before the block.
        needs: Names of the statistics that each group's input is asked for.

    Raises:
        NumericalFailure: a statistic is NaN or infinite.
    """
    collectors = [
        Collector(asked, group.matrices[0].shape[1], group.matrices[0].view.device, states.seq_len)
        for group, asked in zip(groups, needs, strict=True)
    ]
    with ExitStack() as stack:
        for group, collector in zip(groups, collectors, strict=True):
            last = group is groups[-1] and group.always_runs
            watched = watching_input(group.first, collector.update, ends_pass=last)
            stack.enter_context(watched)
        for _ in passes(index, block, states):
            pass
    names = (f"block {index}, {group.matrices[0].name}" for group in groups)
    return [collectors.pop(0).stats(name).usable() for name in names]
