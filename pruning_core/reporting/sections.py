"""The page's sections as plain tables and paragraphs, built from what the report has and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from pruning_core.reporting import units, words
from pruning_core.reporting.drawing import Plot
from pruning_core.reporting.plots import by_kind, plots, recovery, units_by_kind
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report import (
    DataReport,
    GateReport,
    Perplexity,
    Report,
    Score,
    SearchReport,
    SizeReport,
    SpeedReport,
    UnitReport,
)
from pruning_core.spec.unit_methods import GOA

NOT_MEASURED = "n/a"
CHANCE_NOTE = (
    "Intervals are 95 % intervals. “Within chance” means that the difference is no larger than repeated "
    "measurements on other texts or questions of the same kind would show by themselves."
)
OTHER_TOKENS_NOTE = (
    "Tokens were removed, so the two models split the same text differently: the pruned model's loss is spread over "
    "the dense model's tokens of that text, so that both perplexities count the same. Bits per byte say it without tokens."
)
DENSE_TARGET_NOTE = (
    "Errors are against the dense model's own outputs, so they include what earlier blocks changed."
)
STOPPED = {
    "budget": "its budget was spent",
    "patience": "validation no longer improved",
    "time": "its time was up",
}


@dataclass(frozen=True)
class Table:
    """Columns without a single entry are left out; the first column heads its rows."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_text: bool = False
    """Left-aligned throughout; else figures, right-aligned after the first column."""


@dataclass(frozen=True)
class Quote:
    """Text that a model wrote."""

    title: str
    text: str


@dataclass(frozen=True)
class Folded:
    """Shown when opened."""

    summary: str
    table: Table | None = None
    text: str | None = None


@dataclass(frozen=True)
class Section:
    """One heading and what stands below it."""

    anchor: str
    heading: str
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    quotes: tuple[Quote, ...] = ()
    folded: tuple[Folded, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the report has nothing for it."""
        return not (self.tables or self.plots or self.quotes or self.folded)


def sections(report: Report) -> tuple[Section, ...]:
    """Return what the report has to show, in the order of reading."""
    made = (
        _quality(report),
        _size_and_speed(report),
        Section("plots", "Plots", plots=plots(report)),
        _matrices(report),
        _units(report),
        _search(report.search),
        _recovery(report),
        _samples(report),
        _data(report),
        _reproducibility(report),
        _files(report),
    )
    return tuple(section for section in made if not section.is_empty)


def _table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, is_text: bool = False
) -> Iterator[Table]:
    """Yield the table without its empty columns; nothing where it has no rows."""
    if not rows:
        return
    kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    yield Table(
        caption,
        tuple(columns[index] for index in kept),
        tuple(tuple(row[index] or NOT_MEASURED for index in kept) for row in rows),
        is_text=is_text,
    )


def _quality(report: Report) -> Section:
    tables = (*_gates(report.gates), *_perplexity(report), *_accuracy(report), *_harness(report))
    notes = [CHANCE_NOTE] if report.perplexity or report.accuracy else []
    if report.perplexity and units.retokenized(report):
        notes.append(OTHER_TOKENS_NOTE)
    return Section("quality", "Quality before and after", tuple(notes), tables)


def _gates(gates: Sequence[GateReport]) -> Iterator[Table]:
    columns = ("Figure", "At least", "At most", "Found", "Result")
    rows = [
        (
            gate.metric,
            words.given(gate.min),
            words.given(gate.max),
            words.number(gate.value),
            "passed" if gate.passed else "missed",
        )
        for gate in gates
    ]
    yield from _table("Quality gates", columns, rows)


def _perplexity(report: Report) -> Iterator[Table]:
    columns = (
        "Task", "Dense", "Pruned", "Pruned over dense", "In words", "Bits per byte, dense",
        "Bits per byte, pruned", "Tokens", "Resampled",
    )  # fmt: skip
    rows = [
        (
            one.task,
            words.with_interval(one.dense, one.dense_interval),
            words.with_interval(one.pruned, one.pruned_interval),
            words.with_interval(one.ratio, one.ratio_interval),
            words.judged_ratio(one),
            words.with_interval(one.bits_per_byte_dense, None),
            words.with_interval(one.bits_per_byte_pruned, None),
            f"{one.tokens:,}",
            _resampled(one),
        )
        for one in report.perplexity
    ]
    yield from _table("Perplexity: lower is better", columns, rows)


def _resampled(measured: Perplexity) -> str:
    """Return what the intervals were drawn from; nothing where there are none."""
    if measured.pruned_interval is None:
        return ""
    return words.tied(f"{measured.units:,} {measured.resampled}")


def _accuracy(report: Report) -> Iterator[Table]:
    columns = (
        "Task", "Measure", "Dense", "Pruned", "In words", "Lost", "Gained", "p-value", "Items",
    )  # fmt: skip
    rows = [
        (one.task, measure, *_score(score), f"{one.items:,}")
        for one in report.accuracy
        for measure, score in (("acc", one.acc), ("acc_norm", one.acc_norm))
    ]
    yield from _table("Accuracy on multiple choice: higher is better", columns, rows)


def _score(score: Score) -> tuple[str, ...]:
    return (
        words.share_with_interval(score.dense, score.dense_interval),
        words.share_with_interval(score.pruned, score.pruned_interval),
        words.judged_score(score),
        "" if score.lost is None else f"{score.lost:,}",
        "" if score.gained is None else f"{score.gained:,}",
        words.p_value(score.p_value),
    )


def _harness(report: Report) -> Iterator[Table]:
    columns = ("Task", "Measure", "Dense", "Pruned", "Items")
    rows = [
        (
            one.task,
            one.metric,
            _with_error(one.dense, one.dense_stderr),
            _with_error(one.pruned, one.pruned_stderr),
            "" if one.items is None else f"{one.items:,}",
        )
        for one in report.harness
    ]
    yield from _table("lm-evaluation-harness, with standard errors", columns, rows)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return words.number(value) + ("" if error is None else words.tied(f" ± {words.number(error)}"))


def _size_and_speed(report: Report) -> Section:
    sized = _shrunk(report) if units.shrinks(report.spec) else _with_zeros(report)
    tables = (*sized, *_cut(report), *_speed(report.speed))
    return Section("size-and-speed", "Size and speed", tables=tables)


def _with_zeros(report: Report) -> Iterator[Table]:
    removed = report.parameters - report.parameters_nonzero
    in_matrices = "" if units.zeroes(report.spec) else words.percent(report.sparsity)
    rows = (
        ("Parameters", f"{report.parameters:,}"),
        ("Parameters that are not zero", f"{report.parameters_nonzero:,}"),
        ("Zeros among all parameters", f"{removed:,} ({words.percent(report.sparsity_model)})"),
        ("Zeros among the weights of the pruned matrices", in_matrices),
        ("Weights on disk, dense", words.size(report.bytes_before)),
        ("Weights on disk, pruned", words.size(report.bytes_after)),
    )
    yield from _table("Size", ("", ""), _filled(rows))


def _shrunk(report: Report) -> Iterator[Table]:
    """Yield the size of a model that lost whole units."""
    parameters = (report.parameters, report.parameters_after)
    on_disk = (report.bytes_before, report.bytes_after)
    rows = [
        (
            name,
            shown(before),
            shown(after),
            f"{shown(before - after)} {words.tied(f'({words.percent(1 - after / before)})')}",
        )
        for name, (before, after), shown in (
            ("Parameters", parameters, _counted),
            ("Weights on disk", on_disk, words.size),
        )
    ]
    yield from _table("Size", ("Figure", "Dense", "Pruned", "Removed"), rows)


def _counted(number: float) -> str:
    return f"{number:,.0f}"


def _cut(report: Report) -> Iterator[Table]:
    """Yield how many units of each kind went; zeroed ones take no parameters away."""
    shrinks = units.shrinks(report.spec)
    rows = [_cut_of(size, shrinks=shrinks) for size in report.sizes]
    done = "Removed" if shrinks else "Zeroed"
    columns = ("Units", "Dense", "Left", done, "Parameters that this alone takes")
    yield from _table(f"{done} units by kind", columns, rows)


def _cut_of(size: SizeReport, *, shrinks: bool) -> tuple[str, ...]:
    per = {"neurons": " per feed-forward", "kv_groups": " per block"}.get(size.kind, "")
    removed = size.before - size.after
    return (
        units.NAMES[size.kind] + per,
        f"{size.before:,}",
        f"{size.after:,}",
        f"{removed:,} {words.tied(f'({words.percent(removed / size.before)})')}",
        f"{size.parameters_removed:,}" if shrinks else "",
    )


def _speed(speed: SpeedReport | None) -> Iterator[Table]:
    if speed is None:
        return
    caption = (
        f"Tokens per second: {speed.prompt_tokens:,} read at once (prefill), "
        f"{speed.new_tokens:,} written one by one (decode)"
    )
    dense, pruned = speed.dense, speed.pruned
    rows = (
        _rate("Prefill", dense.prefill if dense else None, pruned.prefill),
        _rate("Decode", dense.decode if dense else None, pruned.decode),
    )
    yield from _table(caption, ("Phase", "Dense", "Pruned", "Pruned over dense"), rows)


def _rate(name: str, dense: float | None, pruned: float) -> tuple[str, ...]:
    ratio = words.number(pruned / dense) if dense else ""
    return (name, words.with_interval(dense, None), words.number(pruned), ratio)


def _matrices(report: Report) -> Section:
    removed = by_kind(report, lambda matrix: matrix.sparsity)
    errors = by_kind(report, lambda matrix: matrix.error)
    rows = [
        (
            kind,
            f"{len(line):,}",
            _span(line.values(), words.percent),
            _span(errors.get(kind, {}).values(), words.number),
        )
        for kind, line in removed.items()
    ]
    columns = ("Kind", "Blocks", "Removed", "Relative output error")
    caption = "Pruned matrices by kind: range over the blocks"
    folded = (*_reconstructed(report),)
    return Section("matrices", "Matrices", tables=(*_table(caption, columns, rows),), folded=folded)


def _span(values: Collection[float], shown: Callable[[float], str]) -> str:
    if not values:
        return ""
    return " to ".join(dict.fromkeys((shown(min(values)), shown(max(values)))))


def _reconstructed(report: Report) -> Iterator[Folded]:
    rows = [
        (
            str(block.block),
            f"{trained.steps:,}",
            words.number(trained.loss_before),
            words.number(trained.loss_after),
        )
        for block in report.blocks
        if (trained := block.reconstruction) is not None
    ]
    columns = ("Block", "Steps", "Loss before", "Loss after")
    for table in _table("Block reconstruction: mean squared error on held-out text", columns, rows):
        yield Folded("What training each block gained", table)


def _units(report: Report) -> Section:
    tables = (*_units_of_blocks(report), *_whole_blocks(report))
    notes = (DENSE_TARGET_NOTE,) if _against_dense(report) else ()
    return Section("units", "Units", notes, tables)


def _against_dense(report: Report) -> bool:
    """Return whether read-outs were fitted to, and compared with, the dense model's outputs."""
    refit, method = report.spec.refit, report.spec.method
    rebuilt = isinstance(method, GOA) and method.reconstruct
    fitted = rebuilt or (refit is not None and refit.target == "dense")
    return fitted and any(block.units for block in report.blocks)


def _units_of_blocks(report: Report) -> Iterator[Table]:
    errors = units_by_kind(report, lambda unit: unit.error)
    before = units_by_kind(report, lambda unit: unit.error_before_refit)
    found: dict[str, list[UnitReport]] = {}
    for block in report.blocks:
        for unit in block.units:
            found.setdefault(units.NAMES[unit.kind], []).append(unit)
    blocks = units_by_kind(report, lambda unit: unit.removed)
    rows = [
        (
            kind,
            f"{len(blocks[kind]):,}",
            _span([unit.removed for unit in parts], _counted),
            _span([unit.of for unit in parts], _counted),
            _span(errors.get(kind, {}).values(), words.number),
            _span(before.get(kind, {}).values(), words.number),
        )
        for kind, parts in found.items()
    ]
    done = "Removed" if units.shrinks(report.spec) else "Zeroed"
    columns = (
        "Kind",
        "Blocks",
        done,
        "Of",
        "Relative output error",
        "Before what is left was fitted",
    )
    yield from _table("Units within blocks: range over the blocks", columns, rows)


def _whole_blocks(report: Report) -> Iterator[Table]:
    done = "removed" if units.shrinks(report.spec) else "zeroed"
    if report.removed_blocks:
        runs = ", ".join(_runs(report.removed_blocks))
        rows = ((f"Blocks {done}, counted from 0", runs),)
        yield from _table(f"Whole blocks {done}", ("", ""), rows, is_text=True)


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    """Yield ascending numbers with neighbours taken together: `3`, `7 to 9`."""
    starts = [one for one in numbers if one - 1 not in numbers]
    ends = [one for one in numbers if one + 1 not in numbers]
    for start, end in zip(starts, ends, strict=True):
        yield str(start) if start == end else f"{start} to {end}"


def _recovery(report: Report) -> Section:
    found = report.recovery
    if found is None:
        return Section("recovery", "Recovery")
    kept = f"those of step {found.best_step:,}" if found.best_step else "the pruned model's"
    losses = "weighted with the distance to the dense model" if found.distilled else "per token"
    rows = (
        ("Method", found.method),
        ("Validation loss of the pruned model", words.number(found.loss_before)),
        ("Validation loss after fine-tuning", words.number(found.loss_after)),
        ("Steps", f"{found.steps:,}"),
        ("Passes over the training text", words.given(found.epochs)),
        ("Stopped because", STOPPED[found.stopped]),
        ("Weights kept", kept),
        ("Distilled from the dense model", "yes" if found.distilled else "no"),
        ("Training windows", f"{found.windows:,} ({found.tokens:,} tokens)"),
        ("Validation windows", f"{found.validation_windows:,}"),
        ("Precision of products", found.precision),
        ("Time", words.seconds(found.seconds)),
    )
    caption = f"What fine-tuning gained; loss is negative log-likelihood, {losses}"
    drawn = recovery(found)
    return Section(
        "recovery",
        "Recovery",
        notes=_without_gain(found),
        tables=(*_table(caption, ("", ""), rows),),
        plots=() if drawn is None else (drawn,),
    )


def _without_gain(found: RecoveryReport) -> tuple[str, ...]:
    if found.best_step:
        return ()
    return ("No step of fine-tuning beat the pruned model, which was handed on as it was.",)


def _search(search: SearchReport | None) -> Section:
    if search is None:
        return Section("search", "Search")
    used = "RIA's, which nothing beat" if search.kept_ria else "the best candidate's"
    rows = (
        ("Search", search.name),
        ("Candidates", f"{search.evaluations:,}"),
        ("Coefficients used", used),
        ("alpha", words.given(search.alpha)),
        ("beta", words.given(search.beta)),
        ("gamma", words.given(search.gamma)),
        ("kernel", str(search.kernel)),
        ("Perplexity with RIA, on the search text", words.number(search.perplexity_ria)),
        (
            "Perplexity of the best candidate, on the search text",
            words.number(search.perplexity_found),
        ),
        ("Windows of search text", f"{search.windows:,}"),
        ("Time of observing, searching, checking", _durations(search)),
    )
    return Section("search", "Search", tables=(*_table("What the search found", ("", ""), rows),))


def _durations(search: SearchReport) -> str:
    spent = (search.seconds_observing, search.seconds_searching, search.seconds_checking)
    return ", ".join(map(words.seconds, spent))


def _samples(report: Report) -> Section:
    found = report.verification
    quotes = tuple(
        Quote(title, text)
        for title, text in (("Dense", found.dense_sample), ("Pruned", found.sample))
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
    rows = [(task, f"{samples:,}") for task, samples in used.tasks.items()]
    yield from _table(caption, ("Task", "Samples"), rows)


def _origins(report: Report) -> Iterator[Table]:
    columns = ("Task", "Used for", "Comes from", "Items", "Licence")
    rows = [
        (
            one.task,
            "calibration" if one.split == "calibration" else "evaluation",
            _origin(one),
            f"{one.items:,}",
            one.licence or "unknown: look it up",
        )
        for one in report.data
    ]
    yield from _table("Where the data comes from", columns, rows, is_text=True)


def _origin(data: DataReport) -> str:
    return data.origin + (f", revision {data.revision}" if data.revision else "")


def _overlaps(report: Report) -> Iterator[Table]:
    rows = [
        (one.calibration_task, one.evaluation_task, f"{one.items:,}") for one in report.overlaps
    ]
    columns = ("Calibration task", "Evaluation task", "Items in both")
    yield from _table("Items that calibrate and are evaluated too", columns, rows)


def _digests(report: Report) -> Iterator[Folded]:
    rows = [
        *((f"{one.task}, {one.split} items", one.digest) for one in report.data),
        *((f"{one.task}, evaluated tokens", one.digest) for one in report.perplexity),
        *((f"{one.task}, evaluated questions", one.digest) for one in report.accuracy),
    ]
    if report.calibration is not None:
        rows.append(("calibration tokens", report.calibration.digest))
    if report.search is not None:
        rows.append(("search tokens", report.search.digest))
    if report.recovery is not None:
        rows.append(("fine-tuning tokens", report.recovery.digest))
    for table in _table("sha256 of all text", ("Text", "Digest"), rows, is_text=True):
        yield Folded("Digests of the data", table)


def _reproducibility(report: Report) -> Section:
    facts = (
        ("Fingerprint", report.fingerprint),
        ("Dense model", report.model_digest),
        ("Specification", report.spec_digest),
        ("Licence of the dense model", report.licence or "unknown: look it up"),
        ("Device", report.device),
        ("Blocks taken over from an earlier attempt", f"{report.resumed_blocks:,}"),
        (
            "Largest difference of logits after reloading",
            words.number(report.verification.max_logit_difference),
        ),
        (
            "Pruning time over one forward pass",
            words.with_interval(report.timing.prune_over_forward, None),
        ),
    )
    versions = {**report.versions, **report.verification.loads_in}
    tables = (
        *_table("What the result depends on", ("", ""), _filled(facts), is_text=True),
        *_table("Versions", ("Library", "Version"), list(versions.items()), is_text=True),
        *_table("Time", ("Phase", "Duration"), _durations_of(report)),
        *_table("Peak memory", ("Where", "Bytes"), _peaks(report)),
    )
    spec = Folded("The specification, as it ran", text=report.spec.model_dump_json(indent=2))
    return Section("reproducibility", "Reproducibility", tables=tables, folded=(spec,))


def _filled(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [row for row in rows if row[1]]


def _durations_of(report: Report) -> list[tuple[str, str]]:
    return [(phase, words.seconds(spent)) for phase, spent in report.timing.phases.items()]


def _peaks(report: Report) -> list[tuple[str, str]]:
    return [(place, words.size(peak)) for place, peak in report.peak_memory_bytes.items()]


def _files(report: Report) -> Section:
    rows = [(file.path, words.size(file.bytes), file.sha256) for file in report.files]
    columns = ("Path", "Size", "sha256")
    folded = [
        Folded(f"{len(rows):,} files", table)
        for table in _table("Files of the checkpoint", columns, rows, is_text=True)
    ]
    return Section("files", "Files", folded=tuple(folded))
