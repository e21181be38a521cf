"""A result that is not what was asked for never reaches a checkpoint, whichever method made it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from pruning_core.errors import NumericalFailure
from pruning_core.model.matrix import Matrix
from pruning_core.numerics.input_statistics import Stats
from pruning_core.plans.element import ElementPlan
from pruning_core.prune.matrix import prune_matrix
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report_parts.removal import MatrixReport

Pair = tuple[torch.Tensor, torch.Tensor]
TWO_OF_FOUR = {"sparsity": None, "pattern": {"name": "n:m", "n": 2, "m": 4}}


def pruned(spoil: Callable[[torch.Tensor, torch.Tensor], Pair], **changes: object) -> MatrixReport:
    """Prune 4 x 8 weights by magnitude to one half, spoilt on the way."""
    torch.manual_seed(0)
    linear = nn.Linear(8, 4, bias=False)
    plan = ElementPlan.of(
        PruneSpec.model_validate({"method": "magnitude", "sparsity": 0.5} | changes)
    )
    sound = plan.element

    def update(weight: torch.Tensor, stats: Stats, select: object, params: object) -> Pair:
        return spoil(*sound.prune(weight, stats, plan.select))

    return prune_matrix(
        Matrix("fc", linear, 0, 4),
        "fc.weight",
        Stats(tokens=0),
        replace(sound, update=update),
        plan.refinements,
        plan.select,
        ordering=None,
        stored=torch.float16,
    )


def one_more(weight: torch.Tensor, keep: torch.Tensor) -> Pair:
    keep[tuple(keep.nonzero()[0])] = False
    return weight * keep, keep


def elsewhere(weight: torch.Tensor, keep: torch.Tensor) -> Pair:
    """Keep the count, not the groups."""
    keep = torch.zeros_like(keep)
    keep[:2] = True
    return torch.ones_like(weight) * keep, keep


FAULTS: dict[str, tuple[Callable[[torch.Tensor, torch.Tensor], Pair], dict[str, object], str]] = {
    "count": (one_more, {}, "17 weights were removed, 16 were asked for"),
    "not zero": (lambda weight, keep: (weight + 1, keep), {}, "a removed weight is not zero"),
    "NaN": (lambda weight, keep: (weight * torch.nan, keep), {}, "NaN, infinity or more"),
    "overflow": (lambda weight, keep: (weight * 1e6, keep), {}, "float16 holds"),
    "groups": (elsewhere, TWO_OF_FOUR, "does not keep 2 of 4"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_result_is_refused(fault: str) -> None:
    spoil, changes, says = FAULTS[fault]
    with pytest.raises(NumericalFailure, match=says):
        pruned(spoil, **changes)


@pytest.mark.parametrize("changes", [{}, TWO_OF_FOUR], ids=["matrix", "n:m"])
def test_a_sound_one_is_reported(changes: dict[str, object]) -> None:
    report = pruned(lambda weight, keep: (weight, keep), **changes)
    assert (report.removed, report.zeros, report.sparsity, report.error) == (16, 16, 0.5, None)
