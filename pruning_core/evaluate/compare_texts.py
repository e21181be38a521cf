"""Perplexity of both models over the same texts, with intervals over documents or windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from pruning_core.evaluate import intervals
from pruning_core.evaluate.evaluation_set import EvaluationSet
from pruning_core.evaluate.intervals import Figures
from pruning_core.evaluate.measure import Measured
from pruning_core.evaluate.perplexity import exp_mean
from pruning_core.spec.report_parts.quality import Perplexity
from pruning_core.text.windows import Windows


def perplexities(
    by: EvaluationSet,
    dense: Measured | None,
    pruned: Measured,
    by_pruned: EvaluationSet | None = None,
) -> tuple[Perplexity, ...]:
    """Return every text task's perplexity before and after.

    Args:
        by: The dense model's evaluation set.
        dense: What they found; None where it was not measured.
        pruned: Of the pruned model.
        by_pruned: Its own evaluation set, where it numbers its tokens otherwise: its loss is then spread over the dense
            model's tokens of the same text, so that both perplexities are per token of the same kind.
    """
    return tuple(
        _perplexity(
            task,
            windows,
            dense.losses[task] if dense else None,
            pruned.losses[task],
            by_pruned.texts[task] if by_pruned else None,
        )
        for task, windows in by.texts.items()
    )


def _perplexity(
    task: str,
    windows: Windows,
    dense: list[torch.Tensor] | None,
    pruned: list[torch.Tensor],
    other: Windows | None,
) -> Perplexity:
    units = _units(windows) if other is None else _units_of_rows(windows, windows)
    tokens = np.bincount(units).astype(np.float64)
    after = _per_unit(pruned, units if other is None else _units_of_rows(other, windows))
    alone = Perplexity(
        task=task,
        windows=windows.samples,
        seq_len=windows.seq_len,
        tokens=len(units),
        dense=None,
        pruned=exp_mean(pruned) if other is None else math.exp(after.sum() / len(units)),
        bits_per_byte_pruned=_bits_per_byte(after, windows),
        pruned_interval=intervals.perplexity_interval(after, tokens),
        resampled="windows" if windows.units is None else "documents",
        units=len(tokens),
        digest=windows.digest,
    )
    if dense is None:
        return alone
    before = _per_unit(dense, units)
    perplexity = exp_mean(dense)
    return alone.model_copy(
        update={
            "dense": perplexity,
            "bits_per_byte_dense": _bits_per_byte(before, windows),
            "dense_interval": intervals.perplexity_interval(before, tokens),
            "ratio": alone.pruned / perplexity,
            "ratio_interval": intervals.ratio_interval(before, after, tokens),
        }
    )


def _units(windows: Windows) -> torch.Tensor:
    """Return the unit of every predicted token, numbered from 0, in the order of the losses: its document, or its window."""
    if windows.units is None:
        return _units_of_rows(windows, windows)
    return _numbered(windows.units[:, 1:].reshape(-1))


def _units_of_rows(rows: Windows, windows: Windows) -> torch.Tensor:
    """Return the same where every row counts as a whole: to the document that most of its window's tokens belong to.

    Args:
        rows: The windows, or the same as another tokenizer reads them.
        windows: What the rows are parts of.
    """
    lengths = [group.shape[1] - 1 for group in rows.groups for _ in group]
    owners = torch.tensor(rows.owners or range(len(lengths)))
    if windows.units is not None:
        owners = _numbered(windows.units.mode(dim=1).values)[owners]
    return owners.repeat_interleave(torch.tensor(lengths))


def _numbered(names: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.unique(names.numpy(), return_inverse=True)[1])


def _per_unit(losses: Sequence[torch.Tensor], units: torch.Tensor) -> Figures:
    flat = torch.cat(list(losses)).numpy()
    return np.bincount(units, weights=flat).astype(np.float64)


def _bits_per_byte(sums: Figures, windows: Windows) -> float | None:
    return float(sums.sum()) / math.log(2) / windows.text_bytes if windows.text_bytes else None
