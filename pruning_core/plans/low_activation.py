"""Single rows and columns that stay quiet on a domain's text: the linear part of contextual pruning in `mode: zero`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import nn

from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, Matrix
from pruning_core.model.recorder import passes, watching_input, watching_output
from pruning_core.numerics.input_statistics import ColumnMeanAbs


class Masks(NamedTuple):
    """What goes of one matrix, int64 each.

    Attributes:
        rows: Of the weight.
        columns: Of the weight.
        biases: Entries of the bias; of other rows that go, the bias is all that their output was.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    biases: torch.Tensor


def low_activation_masks(
    index: int,
    block: nn.Module,
    groups: list[InputGroup],
    states: Activations,
    *,
    absolute: float | None,
    relative: float | None,
) -> dict[str, Masks]:
    """Return the rows and columns of every matrix of a block whose mean size is at most the threshold.

    A row counts by the smaller of mean |y_i| and mean |y_i - b_i|, its bias by the former alone, a column by mean |x_j|.
    Of a matrix that the text never reaches nothing goes.

    Args:
        index: Which block.
        block: Its module.
        groups: Its matrices.
        states: Of the text before the block.
        absolute: The threshold; None for a relative one.
        relative: The threshold as a multiple of the mean over the matrix's rows, or columns.
    """
    matrices = [matrix for group in groups for matrix in group.matrices]
    watched = {matrix.name: _MeanSizes(matrix) for matrix in matrices}
    with ExitStack() as stack:
        for sizes in watched.values():
            stack.enter_context(watching_input(sizes.matrix.module, sizes.see_input))
            stack.enter_context(watching_output(sizes.matrix.module, sizes.see_output))
        for _ in passes(index, block, states):
            pass

    def bound(values: torch.Tensor) -> float:
        return absolute if absolute is not None else (relative or 0.0) * float(values.mean())

    return {name: sizes.below(bound) for name, sizes in watched.items()}


class _MeanSizes:
    """Mean sizes of one matrix's outputs and inputs."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        outputs, inputs = matrix.shape
        device = matrix.view.device
        self._inputs = ColumnMeanAbs(inputs, device)
        self._outputs = [ColumnMeanAbs(outputs, device) for _ in range(2)]
        self._reached = False

    def see_input(self, hidden: torch.Tensor) -> None:
        """Add what one call of the module is given, [..., in]."""
        x = hidden.flatten(0, -2).float()
        if len(x):
            self._reached = True
            self._inputs.update(x)

    def see_output(self, output: torch.Tensor) -> None:
        """Add what one call of the module puts out, [..., outputs of all its matrices]."""
        y = output.flatten(0, -2).float()
        if not len(y):
            return
        y = y[:, self.matrix.start : self.matrix.stop]
        bias = self.matrix.bias
        self._outputs[0].update(y)
        self._outputs[1].update(y if bias is None else y - bias.float())

    def below(self, bound: Callable[[torch.Tensor], float]) -> Masks:
        """Return what goes where `bound` gives the largest mean that counts as quiet."""
        if not self._reached:
            nothing = torch.zeros(0, dtype=torch.int64)
            return Masks(nothing, nothing, nothing)
        columns = self._inputs.result()
        whole, centred = (sizes.result() for sizes in self._outputs)
        rows = torch.minimum(whole, centred)
        lowest = bound(rows)
        return Masks(
            _places(rows <= lowest), _places(columns <= bound(columns)), _places(whole <= lowest)
        )


def _places(marked: torch.Tensor) -> torch.Tensor:
    return marked.nonzero().flatten()
