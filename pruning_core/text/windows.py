"""Samples as token ids, grouped by length: what calibrates, trains or is evaluated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.errors import TokensInvalid
from pruning_core.spec.report_parts.data import CalibrationReport


@dataclass(frozen=True)
class Windows:
    """Samples of one or more tasks.

    Attributes:
        groups: int64 [samples, seq] each: samples of one length, the shortest first. Windows are all of one length.
        counts: Samples per task.
        units: int64 like the only group, the document that each token belongs to; None where all belong to one, or it is
            not known.
        text_bytes: Bytes of the predicted text, where it is evaluated.
        by_task: The same samples task by task, each grouped by length, where they calibrate.
        owners: The window of another tokenizer that each sample is part of, in the samples' order; empty where each
            sample stands for itself.
    """

    groups: tuple[torch.Tensor, ...]
    counts: dict[str, int]
    units: torch.Tensor | None = None
    text_bytes: int = 0
    by_task: Mapping[str, tuple[torch.Tensor, ...]] = field(default_factory=dict)
    owners: tuple[int, ...] = ()

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(len(group) for group in self.groups)

    @property
    def tokens(self) -> int:
        """How many they have together."""
        return sum(group.numel() for group in self.groups)

    @property
    def seq_len(self) -> int:
        """Of the longest sample."""
        return max((group.shape[1] for group in self.groups), default=0)

    @property
    def digest(self) -> str:
        """Return sha256 of shapes and token ids."""
        content = hashlib.sha256()
        for group in self.groups:
            content.update("x".join(map(str, group.shape)).encode())
            content.update(group.contiguous().numpy().tobytes())
        return "sha256:" + content.hexdigest()

    def report(self, seed: int) -> CalibrationReport:
        """Return what the report says of them."""
        return CalibrationReport(
            tasks=self.counts,
            seq_len=self.seq_len,
            tokens=self.tokens,
            seed=seed,
            digest=self.digest,
        )


def grouped_by_length(samples: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return samples of one length in one tensor each, the shortest first."""
    by_length: dict[int, list[torch.Tensor]] = {}
    for sample in samples:
        by_length.setdefault(len(sample), []).append(sample)
    return tuple(torch.stack(by_length[length]) for length in sorted(by_length))


def checked_tokens(tokens: torch.Tensor, facts: CheckpointFacts) -> torch.Tensor:
    """Return calibration tokens given by the caller.

    Raises:
        TokensInvalid: not int64 [samples, seq], empty, too long, or an id beyond the vocabulary.
    """
    if tokens.dtype != torch.int64 or tokens.ndim != 2 or tokens.numel() == 0:
        raise TokensInvalid("tokens must be a non-empty int64 tensor of shape [samples, seq_len]")
    if tokens.shape[1] > facts.max_positions:
        raise TokensInvalid(
            f"windows of {tokens.shape[1]} tokens; the model takes at most {facts.max_positions}"
        )
    if int(tokens.min()) < 0 or int(tokens.max()) >= facts.vocab_size:
        raise TokensInvalid(f"token ids must lie in [0, {facts.vocab_size})")
    return tokens.cpu()
