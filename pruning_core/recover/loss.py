"""What training minimises: cross entropy of the next token, blended with the distance to the dense model.

With `distillation` w and temperature T it is (1 - w) CE + w T^2 KL(dense || pruned): Hinton et al., arXiv 1503.02531.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils import parametrize

from pruning_core.spec.recovery import Recovery


def mean_loss(
    model: Any, teacher: Any | None, ids: torch.Tensor, params: Recovery, *, coarse: bool
) -> torch.Tensor:
    """Return the mean loss per predicted token, of int64 [batch, seq] on the models' device.

    Args:
        model: The pruned one.
        teacher: The dense one, where it is distilled.
        ids: Windows.
        params: Say how much the teacher counts, and how soft it is.
        coarse: Whether the pruned model's products are in bfloat16.
    """
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=coarse):
        logits = _logits(model, ids)
    loss = functional.cross_entropy(logits, ids[:, 1:].flatten())
    if teacher is None:
        return loss
    with torch.no_grad():
        expected = _logits(teacher, ids)
    weight = params.distillation
    return (1 - weight) * loss + weight * divergence(logits, expected, params.softness)


def divergence(logits: torch.Tensor, expected: torch.Tensor, softness: float) -> torch.Tensor:
    """Return T^2 KL(expected || logits) at temperature T, the mean over positions of [positions, vocabulary]."""
    ours, theirs = (functional.log_softmax(scores / softness, -1) for scores in (logits, expected))
    loss = functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
    return loss * softness**2


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return float32 [batch * (seq - 1), vocabulary], all but the last position's."""
    with parametrize.cached():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[:, :-1].flatten(0, 1).float()
