"""Statistics of a block's inputs, taken from one forward pass of the calibration windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch
from torch import nn

from pruning_core.model.block_calls import run
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup
from pruning_core.numerics.statistics import Collector, Stats


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
    with _collecting(groups, collectors):
        for hidden, call in states.inputs(index):
            with suppress(_EnoughError):
                run(block, hidden, call)
    names = (f"block {index}, {group.matrices[0].name}" for group in groups)
    return [collectors.pop(0).stats(name).usable() for name in names]


class _EnoughError(Exception):
    """The last input of the block was seen; what comes after it changes no statistic."""


@contextmanager
def _collecting(groups: Sequence[InputGroup], collectors: Sequence[Collector]) -> Iterator[None]:
    """Feed collectors from the modules' inputs; the last one ends the block's forward pass, if it always runs."""
    with ExitStack() as stack:
        for group, collector in zip(groups, collectors, strict=True):
            final = group is groups[-1] and group.always_runs

            def hook(
                _module: nn.Module,
                args: tuple[torch.Tensor, ...],
                collector: Collector = collector,
                final: bool = final,
            ) -> None:
                collector.update(args[0])
                if final:
                    raise _EnoughError

            stack.callback(group.first.register_forward_pre_hook(hook).remove)
        yield
