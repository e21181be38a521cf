"""Bounds on what may be lost, held against what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from pruning_core.spec.evaluation import Gate
from pruning_core.spec.report_parts.quality import Accuracy, GateReport, Interval, Perplexity

Figure = tuple[float, Interval | None]


def gates(
    asked: Iterable[Gate], texts: Iterable[Perplexity], choices: Iterable[Accuracy]
) -> tuple[GateReport, ...]:
    """Return what became of every gate."""
    figures: dict[str, Figure] = {}
    for text in texts:
        figures |= _text_figures(text)
    for choice in choices:
        figures |= _choice_figures(choice)
    return tuple(_gate(gate, *figures[gate.metric]) for gate in asked)


def _text_figures(text: Perplexity) -> dict[str, Figure]:
    figures: dict[str, Figure] = {f"{text.task}.ppl": (text.pruned, text.pruned_interval)}
    if text.ratio is not None:
        figures[f"{text.task}.ppl_ratio"] = (text.ratio, text.ratio_interval)
    return figures


def _choice_figures(choice: Accuracy) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for name, measured in (("acc", choice.acc), ("acc_norm", choice.acc_norm)):
        figures[f"{choice.task}.{name}"] = (measured.pruned, measured.pruned_interval)
        if measured.dense is not None:
            figures[f"{choice.task}.{name}_drop"] = (measured.dense - measured.pruned, None)
    return figures


def _gate(gate: Gate, value: float, interval: Interval | None) -> GateReport:
    low = gate.min is None or value >= gate.min
    high = gate.max is None or value <= gate.max
    return GateReport(
        metric=gate.metric,
        min=gate.min,
        max=gate.max,
        value=value,
        passed=low and high,
        interval=interval,
    )
