"""What quality was kept: perplexity, accuracy, figures of the harness, and the gates held against them."""

from __future__ import annotations

from typing import Literal

from pruning_core.spec.base import Frozen


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
