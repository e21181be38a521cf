"""What a job won and what it lost: the report, and the progress on the way to it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruning_core.spec.base import Frozen
from pruning_core.spec.prune import PruneSpec

SCHEMA_VERSION = 1

Phase = Literal[
    "resolving",
    "downloading",
    "calibrating",
    "searching",
    "allocating",
    "evaluating",
    "pruning",
    "saving",
    "verifying",
    "uploading",
]


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
    warnings: tuple[str, ...] = ()


class TrialReport(Frozen):
    """One candidate of a search."""

    g: float
    b: float
    kernel: int
    value: float
    """What the search minimises: the proxy, or the perplexity on the search text."""


class SearchReport(Frozen):
    """How coefficients were found: every candidate, and the check that decided."""

    name: str
    evaluations: int
    seconds_observing: float
    """Of taking the dense model's statistics, which pruning needs as well."""
    seconds_searching: float
    """Of trying candidates."""
    seconds_checking: float
    """Of the perplexities of RIA and the best candidate, where the search itself measured none."""
    windows: int
    digest: str
    """sha256 of the search text's token ids."""
    perplexity_ria: float
    perplexity_found: float
    """Of the best candidate, on the search text."""
    kept_ria: bool
    """The best candidate did not beat RIA, so RIA's coefficients were used."""
    alpha: float
    beta: float
    gamma: float
    kernel: int
    trials: tuple[TrialReport, ...]


class Perplexity(Frozen):
    """exp of the mean negative log-likelihood over `tokens` predicted tokens of one task's evaluation split."""

    task: str
    windows: int
    seq_len: int
    tokens: int
    dense: float | None
    pruned: float
    digest: str
    """sha256 of the evaluated token ids."""


class CalibrationReport(Frozen):
    """What the statistics were taken from."""

    tasks: dict[str, int]
    """Windows drawn per task."""
    seq_len: int
    tokens: int
    seed: int
    digest: str
    """sha256 of the calibration token ids."""


class FileEntry(Frozen):
    """One file of the checkpoint."""

    path: str
    bytes: int
    sha256: str
    media_type: str


class Verification(Frozen):
    """The result, opened by stock transformers in a fresh process."""

    loads_in: dict[str, str]
    max_logit_difference: float
    """Largest absolute difference to the logits of the pruned model in memory, over the largest absolute logit."""
    sample: str
    """Greedy continuation of a short prompt."""


class Timing(Frozen):
    """Seconds per phase of this run, and the one figure that compares across machines."""

    phases: dict[str, float]
    prune_over_forward: float | None
    """Seconds of pruning over seconds of one plain forward pass of the same tokens through the same blocks, timed on one block in the same run."""


class Report(Frozen):
    """Schema version 1."""

    schema_version: int = SCHEMA_VERSION
    spec: PruneSpec
    spec_digest: str
    fingerprint: str
    """sha256 over model files, specification, calibration tokens and library versions: equal fingerprints give equal bytes."""
    model_digest: str
    family: str
    architecture: str
    parameters: int
    """Parameters of the whole model; masks do not change them."""
    parameters_nonzero: int
    bytes_before: int
    bytes_after: int
    sparsity: float
    """Share of zeros among the weights of all pruned matrices."""
    sparsity_model: float
    """Share of zeros among all parameters."""
    calibration: CalibrationReport | None
    search: SearchReport | None = None
    ratios: tuple[float, ...] | None = None
    """Share removed from each block, where an allocation decided."""
    perplexity: tuple[Perplexity, ...]
    blocks: tuple[BlockReport, ...]
    resumed_blocks: int
    """Blocks taken over from an earlier attempt."""
    timing: Timing
    peak_memory_bytes: dict[str, int]
    """Peak resident memory of the process (`host`) and, where one is used, of the accelerator."""
    verification: Verification
    files: tuple[FileEntry, ...]
    versions: dict[str, str]
    device: str
    warnings: tuple[str, ...]


class Progress(Frozen):
    """One step of the way; `block` is set when a block has been pruned and stored."""

    phase: Phase
    step: int = Field(ge=0)
    total_steps: int = Field(ge=0)
    unit: str = "block"
    percent: float = Field(ge=0, le=100)
    seconds_remaining: float | None = None
    """None until enough was timed to estimate it."""
    block: BlockReport | None = None
