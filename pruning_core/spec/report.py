"""What a job won and what it lost: the report."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Strict

from pruning_core.spec.base import Frozen
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report_parts.data import CalibrationReport, DataReport, Overlap
from pruning_core.spec.report_parts.files import FileEntry, GgufReport, RoundingReport, Verification
from pruning_core.spec.report_parts.quality import (
    Accuracy,
    GateReport,
    HarnessMetric,
    Perplexity,
)
from pruning_core.spec.report_parts.removal import (
    BlockReport,
    SizeReport,
    VocabularyCoverage,
)
from pruning_core.spec.report_parts.search import SearchReport
from pruning_core.spec.report_parts.speed import SpeedReport, Timing

SCHEMA_VERSION = 2

Moment = Annotated[datetime, Strict(strict=False)]
"""JSON has texts for it."""


class Origin(Frozen):
    """Which model was pruned, and by which job."""

    model: str
    """As the job named it, `hf://org/name` or `file:///path`; without a job the folder."""
    revision: str | None = None
    """Branch, tag or commit that the job asked for."""
    commit: str | None = None
    """What that meant on the hub."""
    job_id: str | None = None
    job_name: str | None = None


class Report(Frozen):
    """Everything measured; `schema_version` changes when a field changes its meaning or goes."""

    schema_version: int = SCHEMA_VERSION
    summary: str = ""
    """One sentence on what was won and lost."""
    origin: Origin
    started_at: Moment
    """When the job was first taken up."""
    finished_at: Moment
    """When this was written."""
    spec: PruneSpec
    spec_digest: str
    fingerprint: str
    """sha256 over model files, specification, calibration tokens and library versions: equal fingerprints give equal weights."""
    model_digest: str
    family: str
    architecture: str
    parameters: int
    """Parameters of the dense model."""
    parameters_after: int
    """Parameters of the result: fewer where units were removed."""
    parameters_nonzero: int
    """Of the result."""
    bytes_before: int
    """Of what the user gave: the tensors' bytes of a checkpoint, the file's of GGUF."""
    bytes_after: int
    """Of the result's tensors."""
    source_format: Literal["safetensors", "gguf"] = "safetensors"
    """Of what the user gave."""
    sparsity: float
    """Share of zeros among the weights of all pruned matrices; where units were removed, share of the dense model's parameters that went."""
    sparsity_model: float
    """Share of zeros among all parameters, or of parameters that went."""
    sizes: tuple[SizeReport, ...] = ()
    """What was cut, where units were removed."""
    vocabulary: tuple[VocabularyCoverage, ...] = ()
    """Where tokens went: what share of the evaluated text is in those that stay."""
    removed_blocks: tuple[int, ...] = ()
    """Blocks that went whole, by their numbers in the dense model."""
    calibration: CalibrationReport | None
    search: SearchReport | None = None
    ratios: tuple[float, ...] | None = None
    """Share removed from each block, where an allocation decided."""
    recovery: RecoveryReport | None = None
    perplexity: tuple[Perplexity, ...]
    accuracy: tuple[Accuracy, ...] = ()
    harness: tuple[HarnessMetric, ...] = ()
    speed: SpeedReport | None = None
    gates: tuple[GateReport, ...] = ()
    data: tuple[DataReport, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    licence: str | None = None
    """The dense model's, as its model card or licence file names it."""
    left_behind: tuple[str, ...] = ()
    """What lies in the dense model's folder and is not in the result: code, pickles, hidden files, other weights."""
    blocks: tuple[BlockReport, ...]
    resumed_blocks: int
    """Blocks taken over from an earlier attempt."""
    timing: Timing
    peak_memory_bytes: dict[str, int]
    """Peak resident memory of the process (`host`) and, where one is used, of the accelerator."""
    verification: Verification
    """Of the checkpoint before its weights were rounded, where they were."""
    rounding: RoundingReport | None = None
    """Where `output.dtype` is not the source's."""
    gguf: GgufReport | None = None
    files: tuple[FileEntry, ...]
    versions: dict[str, str]
    device: str
    warnings: tuple[str, ...]
