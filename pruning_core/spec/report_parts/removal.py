"""What was removed: from matrices, from blocks, from the model as a whole."""

from __future__ import annotations

from pruning_core.spec.base import Frozen
from pruning_core.spec.unit_method import UnitKind


class MatrixReport(Frozen):
    """One pruned matrix."""

    name: str
    """Tensor name in the checkpoint; a part of a fused tensor carries `[part]`."""
    shape: tuple[int, int]
    """Outputs, inputs."""
    zeros: int
    """Weights that are zero in the file."""
    removed: int
    """Weights that the mask removed."""
    sparsity: float
    """`removed` over the number of weights."""
    error: float | None = None
    """Norm of the change of its output over the norm of its dense output, on the calibration text; None without any.
    From the Gram matrix where the method keeps one, else estimated from a random sketch of the inputs (within a few %)."""


class UnitReport(Frozen):
    """The units of one kind in one block."""

    kind: UnitKind
    part: str = ""
    """Which of the block's feed-forwards: an expert's number, else empty."""
    of: int
    """Units that there were."""
    removed: int
    digest: str
    """sha256 of the removed units' numbers: which ones went."""
    error: float | None = None
    """Norm of the change of the read-out's output over the norm of the output it is compared with, on the calibration text."""
    error_before_refit: float | None = None
    """The same before what is left of the read-out was fitted."""
    ridge: float | None = None
    """Of that fit, as asked for or as found on held-out calibration text."""


class ReconstructionReport(Frozen):
    """What training a block gained, as mean squared error on held-out windows."""

    steps: int
    loss_before: float
    loss_after: float


class BlockReport(Frozen):
    """One block as the ledger holds it."""

    block: int
    seconds: float
    file: str
    sha256: str
    bytes: int
    matrices: tuple[MatrixReport, ...]
    reconstruction: ReconstructionReport | None = None
    units: tuple[UnitReport, ...] = ()
    """What was removed whole; of residual dimensions one mask serves all blocks, see `sizes`."""
    warnings: tuple[str, ...] = ()


class SizeReport(Frozen):
    """How many units of one kind there are, per block for what lies within blocks."""

    kind: UnitKind
    before: int
    after: int
    parameters_removed: int
    """What cutting this kind alone, in every block, would take from the model."""


class VocabularyCoverage(Frozen):
    """What tokens that went from the vocabulary mean for text that did not choose them: one task's evaluation split."""

    task: str
    tokens: int
    """Of that text, as the dense model's tokenizer reads it."""
    kept: float
    """Share of them that stay in the vocabulary; the others are spelled with smaller tokens."""
    tokens_after: int | None
    """Of the same text, as the reduced tokenizer reads it; None where tokens were zeroed and the tokenizer stays."""
