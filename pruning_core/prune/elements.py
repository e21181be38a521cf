"""Element-wise pruning of one block, with block reconstruction where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.plans.element import ElementPlan
from pruning_core.prune.block_matrices import BlockMatrices
from pruning_core.prune.block_reconstruction import Sample, reconstruct
from pruning_core.prune.block_result import BlockResult
from pruning_core.prune.ledger import Ledger
from pruning_core.prune.walk import Walk


@dataclass
class ElementPruner:
    """The pruning of one block.

    Attributes:
        model: The model that the block belongs to.
        plan: What to do with every matrix.
        calibration: States of the calibration windows before the block, or None where nothing reads them.
        dense: Those of the dense model, window by window, for reconstruction.
        alive: Called often.
        index: Which block.
        module: Its module, with dense weights at first.
    """

    model: StreamedModel
    plan: ElementPlan
    calibration: Activations | None
    dense: Activations | None
    alive: Callable[[], None]
    index: int
    module: nn.Module
    advances_plainly: bool = True

    def prune(self) -> BlockResult:
        """Prune every matrix; then train what is left, where the plan says so."""
        samples = self._dense_samples()
        matrices = BlockMatrices(self.model, self.plan, self.calibration, self.index, self.module)
        result = matrices.prune()
        if self.plan.reconstruction is None:
            return result
        weights = matrices.weights()
        stored = [self.model.files.dtype(name) for name in weights]
        gained = reconstruct(
            self.module,
            list(weights.values()),
            stored,
            samples,
            self.plan.reconstruction,
            self.alive,
        )
        return replace(result, reconstruction=gained)

    def advance(self, calibration: Activations) -> None:
        """Move the calibration states over the pruned block."""
        calibration.advance(self.index, self.module)

    def _dense_samples(self) -> list[Sample]:
        """Return every window's way through the dense block, and move the dense states to its output."""
        if self.dense is None:
            return []
        assert self.calibration is not None
        assert self.plan.reconstruction is not None
        source = self.calibration if self.plan.reconstruction.propagate else self.dense
        inputs = list(source.inputs(self.index))
        self.dense.advance(self.index, self.module)
        return [
            Sample(hidden, call, target)
            for (hidden, call), target in zip(inputs, self.dense.hidden, strict=True)
        ]


def element_walk(
    model: StreamedModel,
    plan: ElementPlan,
    ledger: Ledger,
    calibration: Activations | None,
    probe: Activations,
    *,
    dense: Activations | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Walk:
    """Return the walk that prunes element by element.

    Args:
        model: The dense model.
        plan: What to do with every matrix.
        ledger: Finished blocks.
        calibration: States of the calibration windows, or None where nothing reads them.
        probe: States of a few tokens that end as the logits of the pruned model.
        dense: States of the calibration windows in the dense model, window by window, for reconstruction.
        alive: Called often.
    """

    def make_pruner(index: int, block: nn.Module) -> ElementPruner:
        return ElementPruner(model, plan, calibration, dense, alive, index, block)

    return Walk(
        model=model,
        ledger=ledger,
        calibration=calibration,
        probe=probe,
        make_pruner=make_pruner,
        dense=dense,
    )
