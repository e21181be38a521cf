"""Which figures a task of each kind has, for quality gates to bound."""

from __future__ import annotations

from typing import Literal

from pruning_core.errors import DatasetInvalid
from pruning_core.spec.evaluation import Gate

MEASURES = {
    "text": ("ppl", "ppl_ratio"),
    "multiple_choice": ("acc", "acc_norm", "acc_drop", "acc_norm_drop"),
}


def check_gate(gate: Gate, kind: Literal["text", "multiple_choice"]) -> None:
    """Refuse a gate on a figure that its task does not have.

    Raises:
        DatasetInvalid: it has others, which the message names.
    """
    if gate.measure not in MEASURES[kind]:
        known = ", ".join(f"{gate.task}.{measure}" for measure in MEASURES[kind])
        raise DatasetInvalid(f"The gate {gate.metric} bounds a figure that is not there: {known}")
