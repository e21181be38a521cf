"""The page's sections as plain tables and paragraphs, built from what the report has and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from pruning_core.reporting import formatting, naming, units
from pruning_core.reporting.elements import Folded, Quote, Section, Table, filled, table_of
from pruning_core.reporting.plots.every import plots
from pruning_core.reporting.removal_sections import (
    matrices_section,
    recovery_section,
    size_and_speed_section,
    units_section,
)
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.data import DataReport
from pruning_core.spec.report_parts.quality import Perplexity, Score
from pruning_core.spec.report_parts.search import SearchReport

CHANCE_NOTE = (
    "Intervals are 95 % intervals. “Within chance” means that the difference is no larger than repeated "
    "measurements on other texts or questions of the same kind would show by themselves."
)
OTHER_TOKENS_NOTE = (
    "Tokens were removed, so the two models split the same text differently: the pruned model's loss is spread over "
    "the dense model's tokens of that text, so that both perplexities count the same. Bits per byte say it without tokens."
)


def sections(report: Report) -> tuple[Section, ...]:
    """Return what the report has to show, in the order of reading."""
    made = (
        _quality(report),
        size_and_speed_section(report),
        Section("plots", "Plots", plots=plots(report)),
        matrices_section(report),
        units_section(report),
        _search(report.search),
        recovery_section(report),
        _samples(report),
        _data(report),
        _reproducibility(report),
        _files(report),
    )
    return tuple(section for section in made if not section.is_empty)


def _quality(report: Report) -> Section:
    tables = (*_gates(report), *_perplexity(report), *_accuracy(report), *_harness(report))
    notes = [CHANCE_NOTE] if report.perplexity or report.accuracy else []
    if report.perplexity and units.retokenized(report):
        notes.append(OTHER_TOKENS_NOTE)
    return Section("quality", "Quality before and after", tuple(notes), tables)


def _gates(report: Report) -> Iterator[Table]:
    columns = ("Figure", "At least", "At most", "Found", "Result")
    rows = [
        (
            naming.metric(report, gate.metric),
            formatting.given(gate.min),
            formatting.given(gate.max),
            formatting.with_interval(gate.value, gate.interval),
            formatting.judged_gate(gate),
        )
        for gate in report.gates
    ]
    yield from table_of("Quality gates", columns, rows)


def _perplexity(report: Report) -> Iterator[Table]:
    columns = (
        "Task", "Dense", "Pruned", "Pruned over dense", "In words", "Bits per byte, dense",
        "Bits per byte, pruned", "Tokens", "Interval over",
    )  # fmt: skip
    rows = [
        (
            naming.task(report, text.task),
            formatting.with_interval(text.dense, text.dense_interval),
            formatting.with_interval(text.pruned, text.pruned_interval),
            formatting.with_interval(text.ratio, text.ratio_interval),
            formatting.judged_ratio(text),
            formatting.with_interval(text.bits_per_byte_dense, None),
            formatting.with_interval(text.bits_per_byte_pruned, None),
            f"{text.tokens:,}",
            _units_of(text),
        )
        for text in report.perplexity
    ]
    yield from table_of("Perplexity: lower is better", columns, rows)


def _units_of(measured: Perplexity) -> str:
    """Return what the intervals come from; nothing where there are none."""
    if measured.pruned_interval is None:
        return ""
    return formatting.tied(f"{measured.units:,} {measured.resampled}")


def _accuracy(report: Report) -> Iterator[Table]:
    columns = (
        "Task", "Measure", "Dense", "Pruned", "In words", "Guessing", "Lost", "Gained", "p-value", "Items",
    )  # fmt: skip
    rows = [
        (naming.task(report, task.task), measure, *_score(score, task.chance), f"{task.items:,}")
        for task in report.accuracy
        for measure, score in (("acc", task.acc), ("acc_norm", task.acc_norm))
    ]
    yield from table_of("Accuracy on multiple choice: higher is better", columns, rows)


def _score(score: Score, chance: float) -> tuple[str, ...]:
    return (
        formatting.share_with_interval(score.dense, score.dense_interval),
        formatting.share_with_interval(score.pruned, score.pruned_interval),
        formatting.judged_score(score),
        formatting.share_with_interval(chance, None),
        "" if score.lost is None else f"{score.lost:,}",
        "" if score.gained is None else f"{score.gained:,}",
        formatting.p_value(score.p_value),
    )


def _harness(report: Report) -> Iterator[Table]:
    columns = ("Task", "Measure", "Dense", "Pruned", "Items")
    rows = [
        (
            figure.task,
            figure.metric,
            _with_error(figure.dense, figure.dense_stderr),
            _with_error(figure.pruned, figure.pruned_stderr),
            "" if figure.items is None else f"{figure.items:,}",
        )
        for figure in report.harness
    ]
    yield from table_of("lm-evaluation-harness, with standard errors", columns, rows)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return formatting.number(value) + (
        "" if error is None else formatting.tied(f" ± {formatting.number(error)}")
    )


def _search(search: SearchReport | None) -> Section:
    if search is None:
        return Section("search", "Search")
    used = "RIA's, which nothing beat" if search.kept_ria else "the best candidate's"
    rows = (
        ("Search", search.name),
        ("Candidates", f"{search.evaluations:,}"),
        ("Coefficients used", used),
        ("alpha", formatting.given(search.alpha)),
        ("beta", formatting.given(search.beta)),
        ("gamma", formatting.given(search.gamma)),
        ("kernel", str(search.kernel)),
        ("Perplexity with RIA, on the search text", formatting.number(search.perplexity_ria)),
        (
            "Perplexity of the best candidate, on the search text",
            formatting.number(search.perplexity_found),
        ),
        ("Windows of search text", f"{search.windows:,}"),
        ("Time of observing, searching, checking", _durations(search)),
    )
    return Section("search", "Search", tables=(*table_of("What the search found", ("", ""), rows),))


def _durations(search: SearchReport) -> str:
    spent = (search.seconds_observing, search.seconds_searching, search.seconds_checking)
    return ", ".join(map(formatting.seconds, spent))


def _samples(report: Report) -> Section:
    verification = report.verification
    quotes = tuple(
        Quote(title, text)
        for title, text in (("Dense", verification.dense_sample), ("Pruned", verification.sample))
        if text
    )
    note = "The likeliest continuation of one short prompt. One sample proves nothing; it shows gross damage."
    return Section("samples", "What the model writes", (note,), quotes=quotes)


def _data(report: Report) -> Section:
    return Section(
        "data",
        "Data",
        tables=(*_calibration(report), *_origins(report), *_overlaps(report)),
        folded=(*_digests(report),),
    )


def _calibration(report: Report) -> Iterator[Table]:
    used = report.calibration
    if used is None:
        return
    caption = f"Calibration: {used.tokens:,} tokens, at most {used.seq_len:,} per sample, seed {used.seed}"
    rows = [(naming.task(report, task), f"{samples:,}") for task, samples in used.tasks.items()]
    yield from table_of(caption, ("Task", "Samples"), rows)


def _origins(report: Report) -> Iterator[Table]:
    columns = ("Task", "Used for", "Comes from", "Items", "Licence")
    rows = [
        (
            naming.task(report, data.task),
            "calibration" if data.split == "calibration" else "evaluation",
            _origin(data),
            f"{data.items:,}",
            data.licence or "unknown: look it up",
        )
        for data in report.data
    ]
    yield from table_of("Where the data comes from", columns, rows, is_text=True)


def _origin(data: DataReport) -> str:
    return data.origin + (f", revision {data.revision}" if data.revision else "")


def _overlaps(report: Report) -> Iterator[Table]:
    rows = [
        (
            naming.task(report, overlap.calibration_task),
            naming.task(report, overlap.evaluation_task),
            f"{overlap.items:,}",
        )
        for overlap in report.overlaps
    ]
    columns = ("Calibration task", "Evaluation task", "Items in both")
    yield from table_of("Items that calibrate and are evaluated too", columns, rows)


def _digests(report: Report) -> Iterator[Folded]:
    rows = [
        *((f"{data.task}, {data.split} items", data.digest) for data in report.data),
        *((f"{text.task}, evaluated tokens", text.digest) for text in report.perplexity),
        *((f"{task.task}, evaluated questions", task.digest) for task in report.accuracy),
    ]
    if report.calibration is not None:
        rows.append(("calibration tokens", report.calibration.digest))
    if report.search is not None:
        rows.append(("search tokens", report.search.digest))
    if report.recovery is not None:
        rows.append(("fine-tuning tokens", report.recovery.digest))
    for table in table_of("sha256 of all text", ("Text", "Digest"), rows, is_text=True):
        yield Folded("Digests of the data", table)


def _reproducibility(report: Report) -> Section:
    facts = (
        ("Fingerprint", report.fingerprint),
        ("Dense model", report.model_digest),
        ("Specification", report.spec_digest),
        ("Licence of the dense model", report.licence or "unknown: look it up"),
        ("Left behind of its folder", formatting.left_behind(report) or "nothing"),
        ("Device", report.device),
        ("Blocks taken over from an earlier attempt", f"{report.resumed_blocks:,}"),
        (
            "Largest difference of logits after reloading",
            formatting.number(report.verification.max_logit_difference),
        ),
        (
            "Pruning time over one forward pass",
            formatting.with_interval(report.timing.prune_over_forward, None),
        ),
    )
    versions = {**report.versions, **report.verification.loads_in}
    tables = (
        *table_of("What the result depends on", ("", ""), filled(facts), is_text=True),
        *table_of("Versions", ("Library", "Version"), list(versions.items()), is_text=True),
        *table_of("Time", ("Phase", "Duration"), _durations_of(report)),
        *table_of("Peak memory", ("Where", "Bytes"), _peaks(report)),
    )
    spec = Folded("The specification, as it ran", text=report.spec.model_dump_json(indent=2))
    return Section("reproducibility", "Reproducibility", tables=tables, folded=(spec,))


def _durations_of(report: Report) -> list[tuple[str, str]]:
    phases = report.timing.phases
    rows = [(phase.replace("_", " "), formatting.seconds(spent)) for phase, spent in phases.items()]
    return [*rows, ("all phases", formatting.seconds(sum(phases.values())))] if rows else []


def _peaks(report: Report) -> list[tuple[str, str]]:
    return [(place, formatting.size(peak)) for place, peak in report.peak_memory_bytes.items()]


def _files(report: Report) -> Section:
    rows = [(file.path, formatting.size(file.bytes), file.sha256) for file in report.files]
    columns = ("Path", "Size", "sha256")
    folded = [
        Folded(formatting.counted(len(rows), "file"), table)
        for table in table_of("Files of the checkpoint", columns, rows, is_text=True)
    ]
    return Section("files", "Files", folded=tuple(folded))
