"""What a job won and what it lost: the report, and the progress on the way to it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, Strict

from pruning_core.spec.base import Frozen
from pruning_core.spec.output import GgufType, RoundedDtype
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.unit_method import UnitKind

SCHEMA_VERSION = 2

Phase = Literal[
    "resolving",
    "downloading",
    "converting",
    "preparing",
    "calibrating",
    "searching",
    "allocating",
    "evaluating",
    "pruning",
    "saving",
    "recovering",
    "verifying",
    "reporting",
    "uploading",
]


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
    """Of the perplexities of RIA and of the best candidate, with and without its neighbourhood term, where the search itself measured none."""
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

    @property
    def coefficients(self) -> dict[str, float]:
        """What was found, as parameters of the method."""
        return {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma, "kernel": self.kernel}


class Interval(Frozen):
    """A 95 % confidence interval."""

    low: float
    high: float


class Perplexity(Frozen):
    """exp of the mean negative log-likelihood over `tokens` predicted tokens of one task's evaluation split.

    Intervals take `units` documents as independent, or windows where the text is a single document or its documents are not
    known. They are None where these are too few for an interval that holds its level.
    """

    task: str
    windows: int
    seq_len: int
    tokens: int
    dense: float | None
    pruned: float
    dense_interval: Interval | None = None
    pruned_interval: Interval | None = None
    ratio: float | None = None
    """Pruned over dense."""
    ratio_interval: Interval | None = None
    """Paired: the same units for both."""
    bits_per_byte_dense: float | None = None
    """Total negative log-likelihood in bits over the bytes of the predicted text: comparable between tokenizers."""
    bits_per_byte_pruned: float | None = None
    """The same of the pruned model."""
    resampled: Literal["documents", "windows"] = "windows"
    """What the intervals take as independent."""
    units: int = 0
    """How many of them there are."""
    digest: str
    """sha256 of the evaluated token ids."""


class Score(Frozen):
    """One accuracy, with exact intervals (Clopper-Pearson) and McNemar's exact test of the paired answers."""

    dense: float | None
    pruned: float
    dense_interval: Interval | None = None
    pruned_interval: Interval
    lost: int | None = None
    """Items that the dense model answers rightly and the pruned one does not."""
    gained: int | None = None
    """Items the other way round."""
    p_value: float | None = None
    """Of a difference this large if pruning changed nothing; None without a baseline, or of too few items to show any."""


class Accuracy(Frozen):
    """Multiple choice on one task's evaluation split: the continuation of the largest log-likelihood is the answer."""

    task: str
    items: int
    chance: float
    """What guessing reaches: the mean over the items of one over the number of choices."""
    acc: Score
    """By the sum of the continuation's log-likelihoods."""
    acc_norm: Score
    """By that sum over the continuation's length in characters."""
    digest: str
    """sha256 of prompts, continuations and answers as token ids."""


class HarnessMetric(Frozen):
    """One figure of lm-evaluation-harness."""

    task: str
    metric: str
    dense: float | None
    pruned: float
    dense_stderr: float | None = None
    pruned_stderr: float | None = None
    items: int | None = None


class Throughput(Frozen):
    """Tokens per second of one model, median of repeated runs."""

    prefill: float
    """Reading a prompt."""
    decode: float
    """Writing, one token after the other, with the cache."""


class SpeedRatio(Frozen):
    """Pruned over dense speed in one phase: median of the rounds."""

    value: float
    interval: Interval | None
    """Of the median; None where there was time for few rounds only."""


class SpeedReport(Frozen):
    """Both models in turn, round by round, in one process of stock transformers; compare the two, not machines."""

    dense: Throughput | None
    pruned: Throughput
    ratios: dict[Literal["prefill", "decode"], SpeedRatio] = Field(default_factory=dict)
    """Empty where the two were not timed together."""
    rounds: int = 0
    busy_cores: float | None = None
    """Processor cores that other programs kept busy meanwhile, on average."""
    doubts: tuple[str, ...] = ()
    """Why the ratios are not to be relied on."""
    prompt_tokens: int
    new_tokens: int


class GateReport(Frozen):
    """One quality gate and what was found."""

    metric: str
    min: float | None
    max: float | None
    value: float
    passed: bool
    """By the value alone."""
    interval: Interval | None = None
    """Of the value, where it has one: a bound within it is passed or missed by chance."""


class DataReport(Frozen):
    """Where one task's items came from."""

    task: str
    split: Literal["calibration", "eval"]
    origin: Literal["built-in", "folder", "hub", "file", "model"]
    file: str | None = None
    """What its sender called an uploaded file."""
    revision: str | None = None
    """Commit of a hub dataset."""
    items: int
    digest: str
    """sha256 over the items as they were read."""
    licence: str | None = None


class Overlap(Frozen):
    """Items that stand in both splits, used or not, by hash of their text in lower case without spaces and punctuation."""

    calibration_task: str
    evaluation_task: str
    items: int


class CalibrationReport(Frozen):
    """What the statistics were taken from."""

    tasks: dict[str, int]
    """Samples drawn per task."""
    seq_len: int
    """Tokens of the longest sample."""
    tokens: int
    seed: int
    digest: str
    """sha256 of the calibration token ids."""


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
    dense_sample: str | None = None
    """Of the dense model, where its speed was measured."""


class RoundingReport(Frozen):
    """What writing the checkpoint in another type than the source's did to its weights; zeros stay zero."""

    dtype: RoundedDtype
    weights: int
    """How many there are."""
    changed: int
    """Of them, those that the type does not hold exactly."""
    underflows: int
    """Of them, those that were not zero and became zero."""
    relative_error: float
    """Norm of the change of all weights over the norm of all weights."""
    largest_relative_error: float
    """Of one tensor: norm of its change over its norm."""
    max_logit_difference: float
    """Largest absolute difference of the logits of a short probe to those before rounding, over the largest absolute logit."""


class GgufReport(Frozen):
    """The GGUF file, read back and compared with the checkpoint tensor by tensor; zeros stay zero."""

    file: str
    type: GgufType
    bytes: int
    underflows: int
    """Weights that were not zero and became zero."""
    relative_error: float
    """Norm of the change of all weights over the norm of all weights."""
    largest_relative_error: float
    """Of one tensor: norm of its change over its norm."""


class Timing(Frozen):
    """Seconds per phase, and the one figure that compares across machines."""

    phases: dict[str, float]
    """Their sum is the time from `started_at` to `finished_at`; `resolving` is the start of the process and the check of
    the job, `preparing` the reading of data, `earlier_attempts` what went before this attempt."""
    prune_over_forward: float | None
    """Seconds of pruning over seconds of one plain forward pass of the same tokens through the same blocks, timed on one block in the same run."""


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


class Progress(Frozen):
    """One step of the way; `block` is set when a block has been pruned and stored."""

    phase: Phase
    step: int = Field(ge=0)
    """Units that are done."""
    total_steps: int = Field(ge=0)
    """Units that there are to do; 0 where that is not known."""
    unit: str = "block"
    """What is counted: blocks, bytes, tokens, tensors, steps, windows and the like; it may change within a phase."""
    batches: int = Field(default=0, ge=0)
    """Batches, or whatever a unit is made of, that are done since the last whole unit."""
    percent: float = Field(ge=0, le=100)
    """Of everything from the first forward pass on."""
    seconds_remaining: float | None = None
    """Of the same; None until enough was timed to estimate it."""
    phase_seconds_remaining: float | None = None
    """Of the units of the phase in hand; None until enough was timed, or where it is not known how many there are."""
    block: BlockReport | None = None
