"""One sentence on what pruning won and what it lost, from the report's figures and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pruning_core.reporting import formatting, naming, units
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.quality import Accuracy, Perplexity
from pruning_core.spec.report_parts.speed import SpeedReport

MOST_NAMED = 2
"""Tasks of one kind that are named one by one; more are told by their range."""
SAME = 0.005
"""Sizes that differ by a smaller share are called the same."""


def headline(report: Report) -> str:
    """Return the sentence: size, quality, speed; what was not measured is said."""
    said = ", ".join((_size(report), *_quality(report), _speed(report.speed)))
    return f"{said[0].upper()}{said[1:]}."


def _size(report: Report) -> str:
    larger = report.bytes_after / report.bytes_before - 1
    if not units.shrinks(report.spec):
        zeros = f"{formatting.about(report.sparsity_model)} of the parameters are zeros"
        return f"{zeros} in files {_files(larger)}"
    fewer = 1 - report.parameters_after / report.parameters
    if abs(fewer + larger) < SAME:
        return f"{formatting.about(fewer)} smaller"
    return f"{formatting.about(fewer)} fewer parameters in files {_files(larger)}"


def _files(larger: float) -> str:
    """Return how the files' size compares with what the user gave."""
    if abs(larger) < SAME:
        return "of the same size"
    if larger < 0:
        return f"{formatting.about(-larger)} smaller"
    return f"{_times(1 + larger)} as large"


def _times(factor: float) -> str:
    return formatting.tied(f"{factor:.3g} x")


def _quality(report: Report) -> Iterator[str]:
    yield from _perplexity(report, report.perplexity)
    yield from _accuracy(report, report.accuracy)
    if report.harness and not (report.perplexity or report.accuracy):
        yield f"{formatting.counted(len(report.harness), 'figure')} of lm-evaluation-harness below"
    if not (report.perplexity or report.accuracy or report.harness):
        yield "quality not measured"


def _perplexity(report: Report, measured: Sequence[Perplexity]) -> Iterator[str]:
    ratios = [text.ratio for text in measured if text.ratio is not None]
    if len(measured) <= MOST_NAMED:
        yield from (_of_text(report, text) for text in measured)
    elif ratios:
        spread = _spread([f"{ratio:.3g}" for ratio in (min(ratios), max(ratios))])
        yield f"perplexity {formatting.tied(f'{spread} x')} on {len(ratios)} texts"
    else:
        yield f"perplexity on {len(measured)} texts without the dense model's to compare with"


def _of_text(report: Report, text: Perplexity) -> str:
    name = naming.file_name(report, text.task)
    if text.ratio is None:
        return f"perplexity {formatting.number(text.pruned)} on {name} (dense not measured)"
    return f"perplexity {_times(text.ratio)} on {name}{_doubt(formatting.judged_ratio(text))}"


def _doubt(verdict: str) -> str:
    """Return the verdict, unless the figure is beyond chance."""
    return "" if verdict.endswith(formatting.BEYOND_CHANCE) else f" ({verdict})"


def _accuracy(report: Report, measured: Sequence[Accuracy]) -> Iterator[str]:
    changes = [
        100 * (task.acc.pruned - task.acc.dense) for task in measured if task.acc.dense is not None
    ]
    if len(measured) <= MOST_NAMED:
        yield from (_of_questions(report, task) for task in measured)
    elif changes:
        spread = _spread([f"{change:+.1f}" for change in (min(changes), max(changes))])
        yield f"accuracy {formatting.tied(f'{spread} points')} on {len(changes)} tasks"
    else:
        yield f"accuracy on {len(measured)} tasks without the dense model's to compare with"


def _spread(ends: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


def _of_questions(report: Report, task: Accuracy) -> str:
    name, score = naming.file_name(report, task.task), task.acc
    after = formatting.tied(f"{100 * score.pruned:.1f} %")
    if score.dense is None:
        return f"accuracy {after} on {name} (dense not measured)"
    doubt = _doubt(formatting.judged_score(score))
    return f"accuracy {100 * score.dense:.1f} to {after} on {name}{doubt}"


def _speed(speed: SpeedReport | None) -> str:
    if speed is None:
        return "speed not measured"
    if not speed.ratios:
        return "speed not compared with the dense model"
    prefill, decode = (_faster(speed, phase) for phase in formatting.PHASES)
    if prefill == decode and prefill in (formatting.UNRELIABLE, formatting.SAME):
        return f"speed {prefill}"
    return f"speed {prefill} in prefill and {decode} in decode"


def _faster(speed: SpeedReport, phase: formatting.Phase) -> str:
    """Return by how much, where that is beyond doubt."""
    verdict = formatting.judged_speed(speed, phase)
    if verdict in (formatting.UNRELIABLE, formatting.SAME):
        return verdict
    return _times(speed.ratios[phase].value)
