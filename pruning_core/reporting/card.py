"""The model card: README.md of the checkpoint, as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pruning_core.reporting import licence, words
from pruning_core.reporting.licence import Licence
from pruning_core.reporting.rendering import rendered
from pruning_core.spec.patterns import NofM
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import GateReport, Report

_MARKUP = re.compile(r"([\\`*_\[\]|#~$])")


def write(report: Report, *, base_model: str | None, source: Path, checkpoint: Path) -> str | None:
    """Write the card and return the hub's identifier of the licence found.

    Args:
        report: Its list of files need not be complete: the card is one of them.
        base_model: `org/name` on the hub; None for a local model.
        source: The dense model's folder; its card or licence file names the licence.
        checkpoint: The pruned model's folder.
    """
    found = licence.of_folder(source)
    text = rendered("card.md.jinja", _values(report, base_model, found))
    front = _data(report, base_model, found).to_yaml()
    ModelCard(f"---\n{front}\n---\n\n{text}").save(checkpoint / "README.md")
    return found.identifier if found else None


def _data(report: Report, base_model: str | None, found: Licence | None) -> ModelCardData:
    """Return the front matter; the hub knows no relation `pruned`, so none is claimed."""
    return ModelCardData(
        base_model=base_model,
        license=found.identifier if found else None,
        license_name=found.name if found else None,
        license_link=found.link if found else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["pruned", "sparse", report.spec.method.name, _amount_tag(report.spec)],
        model_name=_name(report, base_model),
        eval_results=[*_results(report)] or None,
    )


def _amount_tag(spec: PruneSpec) -> str:
    if isinstance(spec.pattern, NofM):
        return f"{spec.pattern.n}-of-{spec.pattern.m}"
    return f"sparsity-{100 * spec.ratio:.4g}"


def _name(report: Report, base_model: str | None) -> str:
    base = base_model.rpartition("/")[2] if base_model else report.architecture
    return f"{base}-{report.spec.method.name}-{_amount_tag(report.spec)}"


def _results(report: Report) -> Iterator[EvalResult]:
    figures = [("perplexity", one.task, "perplexity", one.pruned) for one in report.perplexity]
    for task in report.accuracy:
        figures.append(("accuracy", task.task, "acc", task.acc.pruned))
        figures.append(("accuracy", task.task, "acc_norm", task.acc_norm.pruned))
    for kind, name, metric, value in figures:
        yield EvalResult(
            task_type="text-generation",
            dataset_type=name,
            dataset_name=name,
            metric_type=kind,
            metric_name=metric,
            metric_value=value,
        )


def _missed(gate: GateReport) -> str:
    bounds = {"at least": gate.min, "at most": gate.max}
    asked = " and ".join(f"{word} {one:g}" for word, one in bounds.items() if one is not None)
    return f"{gate.metric} is {gate.value:.4g}, {asked} was asked for"


def _values(report: Report, base_model: str | None, found: Licence | None) -> dict[str, object]:
    return {
        "name": plain(_name(report, base_model)),
        "done": plain(words.what_was_done(report)),
        "base_model": plain(base_model) if base_model else None,
        "amount": plain(words.amount(report.spec)),
        "method": plain(report.spec.method.name),
        "sparsity": words.percent(report.sparsity),
        "sparsity_model": words.percent(report.sparsity_model),
        "calibration": _calibration(report),
        "rows": [*_rows(report)],
        "missed_gates": [plain(_missed(gate)) for gate in report.gates if not gate.passed],
        "warnings": [plain(warning) for warning in report.warnings],
        "licence": plain(found.name or found.identifier) if found else None,
        "fingerprint": report.fingerprint,
        "versions": plain(", ".join(f"{name} {one}" for name, one in report.versions.items())),
    }


def _calibration(report: Report) -> str | None:
    used = report.calibration
    if used is None:
        return None
    tasks = ", ".join(f"{task} ({samples:,} samples)" for task, samples in used.tasks.items())
    return plain(f"{tasks}; {used.tokens:,} tokens, seed {used.seed}")


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield task, measure, dense, pruned and verdict of everything measured."""
    for one in report.perplexity:
        yield (
            plain(one.task),
            "perplexity",
            words.with_interval(one.dense, one.dense_interval),
            words.with_interval(one.pruned, one.pruned_interval),
            words.judged_ratio(one),
        )
    for task in report.accuracy:
        for measure, score in (("acc", task.acc), ("acc\\_norm", task.acc_norm)):
            yield (
                plain(task.task),
                measure,
                words.share_with_interval(score.dense, score.dense_interval),
                words.share_with_interval(score.pruned, score.pruned_interval),
                words.judged_score(score),
            )
    for figure in report.harness:
        dense = words.with_interval(figure.dense, None)
        yield (plain(figure.task), plain(figure.metric), dense, words.number(figure.pruned), "")


def plain(text: str) -> str:
    """Return text on one line that Markdown shows as it is; the template takes care of HTML."""
    return _MARKUP.sub(r"\\\1", " ".join(words.printable(text).split()))
