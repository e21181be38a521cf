"""The model card: README.md of the checkpoint, as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pruning_core.printable import shown
from pruning_core.reporting import formatting, licence, naming, units
from pruning_core.reporting.headline import headline
from pruning_core.reporting.licence import Licence
from pruning_core.reporting.rendering import rendered
from pruning_core.spec.patterns import NofM
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.data import CalibrationReport
from pruning_core.spec.report_parts.quality import GateReport

_MARKUP = re.compile(r"([\\`*_\[\]|#~$])")


def write(report: Report, *, base_model: str | None, source: Path, checkpoint: Path) -> str | None:
    """Write the card and return the hub's identifier of the licence found.

    Args:
        report: Its list of files need not be complete: the card is one of them.
        base_model: `org/name` on the hub; None for a local model.
        source: The dense model's folder; its card or licence file names the licence.
        checkpoint: The pruned model's folder.
    """
    source_licence = licence.of_folder(source)
    text = rendered("card.md.jinja", _values(report, base_model, source_licence))
    front = _data(report, base_model, source_licence).to_yaml()
    ModelCard(f"---\n{front}\n---\n\n{text}").save(checkpoint / "README.md")
    return source_licence.identifier if source_licence else None


def _data(report: Report, base_model: str | None, source_licence: Licence | None) -> ModelCardData:
    """Return the front matter; the hub knows no relation `pruned`, so none is claimed."""
    return ModelCardData(
        base_model=base_model,
        license=source_licence.identifier if source_licence else None,
        license_name=source_licence.name if source_licence else None,
        license_link=source_licence.link if source_licence else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["pruned", *_tags(report)],
        model_name=_name(report, base_model),
        eval_results=[*_results(report)] or None,
    )


def _tags(report: Report) -> tuple[str, ...]:
    """Return what the hub can find the model by; its achieved share is for the name alone."""
    name = report.spec.method.name
    if report.spec.units is None:
        return ("sparse", name, _amount_tag(report))
    return ("structured-pruning", name) if units.shrinks(report.spec) else (name,)


def _amount_tag(report: Report) -> str:
    pattern = report.spec.pattern
    if report.spec.units is not None:
        return f"{100 * report.sparsity:.3g}pct"
    if isinstance(pattern, NofM):
        return f"{pattern.n}-of-{pattern.m}"
    return f"sparsity-{100 * report.spec.ratio:.4g}"


def _name(report: Report, base_model: str | None) -> str:
    base = naming.model(base_model or report.origin.model).rpartition("/")[2].removesuffix(".gguf")
    return f"{base}-{report.spec.method.name}-{_amount_tag(report)}"


def _results(report: Report) -> Iterator[EvalResult]:
    figures = [("perplexity", text.task, "perplexity", text.pruned) for text in report.perplexity]
    for task in report.accuracy:
        figures.append(("accuracy", task.task, "acc", task.acc.pruned))
        figures.append(("accuracy", task.task, "acc_norm", task.acc_norm.pruned))
    for kind, name, metric, value in figures:
        yield EvalResult(
            task_type="text-generation",
            dataset_type=name,
            dataset_name=naming.file_name(report, name),
            metric_type=kind,
            metric_name=metric,
            metric_value=value,
        )


def _missed(report: Report, gate: GateReport) -> str:
    bounds = {"at least": gate.min, "at most": gate.max}
    asked = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
    return f"{naming.metric(report, gate.metric)} is {gate.value:.4g}, {asked} was asked for"


def _values(
    report: Report, base_model: str | None, source_licence: Licence | None
) -> dict[str, object]:
    return {
        "name": plain(_name(report, base_model)),
        "won": plain(headline(report)),
        "done": plain(formatting.what_was_done(report)),
        "origin": [*_origin(report, base_model)],
        "amount": plain(formatting.amount(report)),
        "method": plain(report.spec.method.name),
        "facts": [*_facts(report)],
        "shrinks": units.shrinks(report.spec),
        "retokenized": units.retokenized(report),
        "rows": [*_rows(report)],
        "missed_gates": [plain(_missed(report, gate)) for gate in report.gates if not gate.passed],
        "warnings": [plain(warning) for warning in report.warnings],
        "licence": plain(source_licence.name or source_licence.identifier)
        if source_licence
        else None,
        "left_behind": plain(formatting.left_behind(report)),
        "fingerprint": report.fingerprint,
        "versions": plain(
            ", ".join(f"{name} {version}" for name, version in report.versions.items())
        ),
    }


def _origin(report: Report, base_model: str | None) -> Iterator[tuple[str, str]]:
    """Yield what was pruned, by which job and when; of a local model its name and not its place."""
    origin = report.origin
    yield "base model", plain(base_model or naming.model(origin.model))
    revision = " = ".join(filter(None, (origin.revision, origin.commit)))
    if revision:
        yield "revision", plain(revision)
    if origin.job_id:
        yield "job", plain(" ".join(filter(None, (origin.job_name, f"({origin.job_id})"))))
    yield "date", formatting.moment(report.finished_at)


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what the table at the top says beside method and amount."""
    if units.shrinks(report.spec):
        yield "parameters", f"{report.parameters:,} before, {report.parameters_after:,} after"
    elif not units.zeroes(report.spec):
        yield "zeros in the pruned matrices", formatting.percent(report.sparsity)
    if not units.shrinks(report.spec):
        yield "zeros among all parameters", formatting.percent(report.sparsity_model)
    if report.rounding is not None:
        yield "weights", f"rounded to {report.rounding.dtype} when written"
    if report.gguf is not None:
        yield "GGUF", plain(f"{report.gguf.file}, made from these weights")
    if report.calibration is not None:
        yield "calibration", _calibration(report, report.calibration)
    if report.recovery is not None:
        yield "fine-tuning", plain(_tuning(report, report.recovery))


def _calibration(report: Report, used: CalibrationReport) -> str:
    tasks = ", ".join(
        f"{naming.file_name(report, task)} ({samples:,} samples)"
        for task, samples in used.tasks.items()
    )
    return plain(f"{tasks}; {used.tokens:,} tokens, seed {used.seed}")


def _tuning(report: Report, recovery: RecoveryReport) -> str:
    asked = report.spec.recovery
    tasks = asked.tasks if asked is not None else None
    named = tasks or tuple(report.calibration.tasks if report.calibration else ())
    text = (
        f" on {formatting.listed([naming.file_name(report, task) for task in named])}"
        if named
        else ""
    )
    teacher = ", distilled from the dense model" if recovery.distilled else ""
    before, after = map(formatting.number, (recovery.loss_before, recovery.loss_after))
    change = f"from {before} to {after}"
    gain = f"loss {change} on held-out windows" if recovery.best_step else "without gain, so undone"
    steps = formatting.counted(recovery.steps, "step")
    return f"{recovery.method}, {steps}, {recovery.trained_tokens:,} tokens{text}{teacher}; {gain}"


def _rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield task, measure, dense, pruned and verdict of everything measured."""
    for text in report.perplexity:
        yield (
            plain(naming.task(report, text.task)),
            "perplexity",
            formatting.with_interval(text.dense, text.dense_interval),
            formatting.with_interval(text.pruned, text.pruned_interval),
            formatting.judged_ratio(text),
        )
        if text.bits_per_byte_pruned is not None:
            dense = formatting.with_interval(text.bits_per_byte_dense, None)
            pruned = formatting.number(text.bits_per_byte_pruned)
            yield (plain(naming.task(report, text.task)), "bits per byte", dense, pruned, "")
    for task in report.accuracy:
        for measure, score in (("acc", task.acc), ("acc\\_norm", task.acc_norm)):
            yield (
                plain(naming.task(report, task.task)),
                measure,
                formatting.share_with_interval(score.dense, score.dense_interval),
                formatting.share_with_interval(score.pruned, score.pruned_interval),
                formatting.judged_score(score),
            )
    for figure in report.harness:
        dense = formatting.with_interval(figure.dense, None)
        yield (
            plain(figure.task),
            plain(figure.metric),
            dense,
            formatting.number(figure.pruned),
            "",
        )


def plain(text: str) -> str:
    """Return text on one line that Markdown shows as it is; the template takes care of HTML."""
    return _MARKUP.sub(r"\\\1", " ".join(shown(text).split()))
