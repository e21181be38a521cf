"""What the dense model puts out where the pruned one is fitted to it: both streams, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from pruning_core.errors import NumericalFailure
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, Matrix
from pruning_core.model.recorder import passes, watching_input, watching_output
from pruning_core.numerics.input_statistics import Collector, Gram, Stats, held_out
from pruning_core.numerics.least_squares import Moments
from pruning_core.numerics.linear_algebra import all_finite


@dataclass
class DenseTargets:
    """The dense model's inputs of some groups, per batch; of a group whose input is no narrower than its outputs, the outputs.

    Attributes:
        weights: Dense weights float32 [out, in] and biases, of every matrix of the groups, by name.
    """

    weights: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = field(default_factory=dict)
    _kept: dict[str, list[list[torch.Tensor]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, index: int, block: nn.Module, groups: Sequence[InputGroup], states: Activations
    ) -> DenseTargets:
        """Run one block of the dense model, and move the states over it."""
        targets = cls()
        with ExitStack() as stack:
            for group in groups:
                for matrix in group.matrices:
                    bias = None if matrix.bias is None else matrix.bias.float().clone()
                    targets.weights[matrix.name] = matrix.read(), bias
                kept = [
                    stack.enter_context(_keeping(module, outputs=narrower(group)))
                    for module in _watched(group)
                ]
                targets._kept[group.matrices[0].name] = kept
            states.advance(index, block)
        return targets

    def pop(self, group: InputGroup) -> list[torch.Tensor]:
        """Return what was kept of a group, one tensor per batch, outputs side by side, and forget it."""
        kept = self._kept.pop(group.matrices[0].name)
        return (
            kept[0]
            if len(kept) == 1
            else [torch.cat(outputs, dim=1) for outputs in zip(*kept, strict=True)]
        )


def _watched(group: InputGroup) -> list[nn.Module]:
    """Return the modules to look at: those with the outputs, or the one that sees the input."""
    if not narrower(group):
        return [group.first]
    return list(dict.fromkeys(matrix.module for matrix in group.matrices))


@contextmanager
def _keeping(module: nn.Module, *, outputs: bool) -> Iterator[list[torch.Tensor]]:
    kept: list[torch.Tensor] = []

    def see(value: torch.Tensor) -> None:
        kept.append(value.flatten(0, -2))

    with watching_output(module, see) if outputs else watching_input(module, see):
        yield kept


def narrower(group: InputGroup) -> bool:
    """Tell whether the outputs of a group's matrices are no wider than their input: of every read-out."""
    inputs = group.matrices[0].shape[1]
    return sum(matrix.shape[0] for matrix in group.matrices) <= inputs


@dataclass(frozen=True)
class CrossMoments:
    """Means over tokens of one group's inputs in the pruned model, with what the dense model has there.

    Attributes:
        stats: Of the pruned model's inputs, with Gram matrix and mean.
        cross: [kept, in], of what was kept of the dense model with those.
        kept_mean: [kept], of what was kept.
        kept_square: [kept], mean square of what was kept.
        kept_gram: [kept, kept], of what was kept, where it is the input of a single matrix, which may be a read-out.
        held: Of the tokens that are held out, where the text is to decide about the ridge.
    """

    stats: Stats
    cross: torch.Tensor
    kept_mean: torch.Tensor
    kept_square: torch.Tensor
    kept_gram: torch.Tensor | None
    held: CrossMoments | None

    def moments(
        self, group: InputGroup, matrix: Matrix, dense: tuple[torch.Tensor, torch.Tensor | None]
    ) -> Moments:
        """Return what the fit of one of the group's matrices needs.

        Args:
            group: Whose inputs these are.
            matrix: One of its matrices.
            dense: The matrix's dense weight [out, in] and bias.
        """
        gram, mean, tokens = self.stats.gram, self.stats.column_mean, self.stats.tokens
        assert gram is not None
        assert mean is not None
        held = None if self.held is None else self.held.moments(group, matrix, dense)
        if narrower(group):
            start = 0
            for other in group.matrices:
                if other is matrix:
                    break
                start += other.shape[0]
            rows = slice(start, start + matrix.shape[0])
            kept = self.cross[rows], self.kept_mean[rows], self.kept_square[rows]
            return Moments(gram, mean, *kept, tokens, held)
        weight, bias = dense
        offset = torch.zeros(len(weight), device=weight.device) if bias is None else bias
        cross = weight @ self.cross + offset[:, None] * mean
        pulled = weight @ self.kept_mean
        square = None
        if self.kept_gram is not None:
            square = ((weight @ self.kept_gram) * weight).sum(dim=1)
            square = square + 2 * offset * pulled + offset.square()
        return Moments(gram, mean, cross, pulled + offset, square, tokens, held)


class _CrossSums:
    """Sums over batches of a group's inputs in the pruned model with what was kept of the dense one."""

    def __init__(self, group: InputGroup, kept: int, window: int, needs: Iterable[str]) -> None:
        first = group.matrices[0]
        width, device = first.shape[1], first.view.device
        self._collector = Collector({"gram", "column_mean", *needs}, width, device, window)
        self._cross = torch.zeros(kept, width, device=device)
        self._sums, self._squares = (torch.zeros(kept, device=device) for _ in "ab")
        alone = len(group.matrices) == 1 and not narrower(group)
        self._gram = Gram(kept, device) if alone else None

    def update(self, x: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch, float32 [..., in] and [..., kept]."""
        self._collector.update(x)
        flat, wanted = x.flatten(0, -2), target.flatten(0, -2)
        self._cross.addmm_(wanted.T, flat)
        self._sums += wanted.sum(dim=0)
        self._squares += wanted.square().sum(dim=0)
        if self._gram is not None:
            self._gram.update(wanted)

    def result(self, name: str, held: CrossMoments | None = None) -> CrossMoments:
        """Return the means."""
        stats = self._collector.stats(name)
        if not all_finite(self._cross):
            raise NumericalFailure(f"{name}: the dense model puts out NaN or infinity there")
        tokens = max(1, stats.tokens)
        return CrossMoments(
            stats,
            self._cross / tokens,
            self._sums / tokens,
            self._squares / tokens,
            None if self._gram is None else self._gram.result(),
            held,
        )


def cross_moments(
    index: int,
    block: nn.Module,
    group: InputGroup,
    states: Activations,
    kept: Sequence[torch.Tensor],
    needs: Iterable[str] = (),
) -> CrossMoments:
    """Return the moments of a group's inputs in the pruned model with what the dense model has there.

    Args:
        index: Which block.
        block: Its module, pruned as far as the group.
        group: Whose inputs are looked at.
        states: The pruned model's, before the block.
        kept: What `DenseTargets` kept of the group.
        needs: Further statistics of its inputs; `held` for all of this of the held-out tokens too.

    Raises:
        NumericalFailure: an input is NaN or infinite.
    """
    width, asked = kept[0].shape[1], set(needs)
    everything = _CrossSums(group, width, states.seq_len, asked - {"held"})
    held = _CrossSums(group, width, states.seq_len, ()) if "held" in asked else None
    seen: list[torch.Tensor] = []
    with watching_input(group.first, seen.append, ends_pass=True):
        for hidden, stored in zip(passes(index, block, states), kept, strict=True):
            x, target = (
                flat.float().reshape(*hidden.shape[:2], -1) for flat in (seen.pop(), stored)
            )
            everything.update(x, target)
            if held is not None:
                held.update(held_out(x), held_out(target))
    name = f"block {index}, {group.matrices[0].name}"
    return everything.result(name, None if held is None else held.result(name))
