"""Element-wise pruning of one block, with block reconstruction where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.plans.element import Plan
from pruning_core.prune.block import BlockPruner
from pruning_core.prune.block_reconstruction import Sample, reconstruct
from pruning_core.prune.ledger import Ledger
from pruning_core.prune.walk import Walk
from pruning_core.spec.report import MatrixReport, ReconstructionReport, UnitReport


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
        reconstruction: What training it gained.
    """

    model: StreamedModel
    plan: Plan
    calibration: Activations | None
    dense: Activations | None
    alive: Callable[[], None]
    index: int
    module: nn.Module
    units: Sequence[UnitReport] = ()
    dropped: Mapping[str, torch.Tensor] = field(default_factory=dict)
    advances_plainly: bool = True
    reconstruction: ReconstructionReport | None = None
    _work: BlockPruner = field(init=False)

    def __post_init__(self) -> None:
        self._work = BlockPruner(self.model, self.plan, self.calibration, self.index, self.module)

    @property
    def reports(self) -> Sequence[MatrixReport]:
        """One per matrix, in order of execution."""
        return self._work.reports

    @property
    def warnings(self) -> Sequence[str]:
        """What the user must know."""
        return self._work.warnings

    @property
    def orders(self) -> Mapping[str, torch.Tensor]:
        """Channel orders that are saved beside the model, by stored name."""
        return self._work.orders

    def prune(self) -> None:
        """Prune every matrix; then train what is left, where the plan says so."""
        samples = self._dense_samples()
        self._work.prune()
        if self.plan.reconstruction is None:
            return
        weights = self._work.weights()
        stored = [self.model.files.dtype(name) for name in weights]
        self.reconstruction = reconstruct(
            self.module,
            list(weights.values()),
            stored,
            samples,
            self.plan.reconstruction,
            self.alive,
        )

    def advance(self) -> None:
        """Move the calibration states over the pruned block."""
        assert self.calibration is not None
        self.calibration.advance(self.index, self.module)

    def changed(self) -> dict[str, torch.Tensor]:
        """Return every tensor of the block that is no longer the source's, by stored name."""
        return self._work.changed()

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
    plan: Plan,
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

    def begin(index: int, block: nn.Module) -> ElementPruner:
        return ElementPruner(model, plan, calibration, dense, alive, index, block)

    return Walk(
        model=model, ledger=ledger, calibration=calibration, probe=probe, begin=begin, dense=dense
    )
