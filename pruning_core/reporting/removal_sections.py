"""The sections on what went: sizes and speed, matrices, units, and what fine-tuning gained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from pruning_core.reporting import formatting, naming, units
from pruning_core.reporting.by_block import by_kind, units_by_kind
from pruning_core.reporting.elements import Folded, Section, Table, filled, table_of
from pruning_core.reporting.grids import largest_errors, matrix_grids, unit_grids
from pruning_core.reporting.plots.course import recovery
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.files import GgufReport, RoundingReport
from pruning_core.spec.report_parts.removal import SizeReport, UnitReport
from pruning_core.spec.report_parts.speed import SpeedReport

DENSE_TARGET_NOTE = (
    "Errors are against the dense model's own outputs, so they include what earlier blocks changed."
)
STOPPED = {
    "budget": "its budget was spent",
    "patience": "validation no longer improved",
    "time": "its time was up",
}


def size_and_speed_section(report: Report) -> Section:
    """Return sizes before and after, and tokens per second."""
    sized = _shrunk(report) if units.shrinks(report.spec) else _with_zeros(report)
    written = (*_rounding(report.rounding), *_gguf(report.gguf))
    tables = (*sized, *written, *_cut(report), *_speed(report.speed))
    return Section("size-and-speed", "Size and speed", tables=tables)


def _with_zeros(report: Report) -> Iterator[Table]:
    removed = report.parameters - report.parameters_nonzero
    in_matrices = "" if units.zeroes(report.spec) else formatting.percent(report.sparsity)
    rows = (
        ("Parameters", f"{report.parameters:,}"),
        ("Parameters that are not zero", f"{report.parameters_nonzero:,}"),
        (
            "Zeros among all parameters",
            f"{removed:,} ({formatting.percent(report.sparsity_model)})",
        ),
        ("Zeros among the weights of the pruned matrices", in_matrices),
        (
            f"Weights on disk, dense{' (GGUF)' if report.source_format == 'gguf' else ''}",
            formatting.size(report.bytes_before),
        ),
        ("Weights on disk, pruned", formatting.size(report.bytes_after)),
    )
    yield from table_of("Size", ("", ""), filled(rows))


def _shrunk(report: Report) -> Iterator[Table]:
    """Yield the size of a model that lost whole units."""
    parameters = (report.parameters, report.parameters_after)
    on_disk = (report.bytes_before, report.bytes_after)
    rows = [
        (
            name,
            shown(before),
            shown(after),
            _gone(before, after, shown),
        )
        for name, (before, after), shown in (
            ("Parameters", parameters, _counted),
            (_on_disk(report), on_disk, formatting.size),
        )
    ]
    yield from table_of("Size", ("Figure", "Dense", "Pruned", "Removed"), rows)


def _on_disk(report: Report) -> str:
    return "Weights on disk" + (" (dense: GGUF)" if report.source_format == "gguf" else "")


def _gone(before: int, after: int, shown: Callable[[int], str]) -> str:
    """Return how much less there is; files of wider types than the source's can be larger."""
    if after > before:
        return f"none: {shown(after - before)} more"
    return (
        f"{shown(before - after)} {formatting.tied(f'({formatting.percent(1 - after / before)})')}"
    )


def _rounding(rounding: RoundingReport | None) -> Iterator[Table]:
    """Yield what another type than the source's did to the weights."""
    if rounding is None:
        return
    rows = (
        ("Weights", f"{rounding.weights:,}"),
        ("Not exact in this type", f"{rounding.changed:,}"),
        ("Became zero", f"{rounding.underflows:,}"),
        ("Change of all weights, relative", formatting.number(rounding.relative_error)),
        (
            "Change of the worst tensor, relative",
            formatting.number(rounding.largest_relative_error),
        ),
        (
            "Change of the logits of a probe, relative",
            formatting.number(rounding.max_logit_difference),
        ),
    )
    yield from table_of(f"Rounded to {rounding.dtype} when written", ("", ""), rows)


def _gguf(gguf: GgufReport | None) -> Iterator[Table]:
    """Yield what the GGUF file holds of the checkpoint."""
    if gguf is None:
        return
    rows = (
        ("Size", formatting.size(gguf.bytes)),
        ("Weights that became zero", f"{gguf.underflows:,}"),
        ("Change of all weights, relative", formatting.number(gguf.relative_error)),
        ("Change of the worst tensor, relative", formatting.number(gguf.largest_relative_error)),
    )
    caption = f"{gguf.file}, matrices in {gguf.type}, read back and compared with the checkpoint"
    yield from table_of(caption, ("", ""), rows)


def _counted(number: float) -> str:
    return f"{number:,.0f}"


def _cut(report: Report) -> Iterator[Table]:
    """Yield how many units of each kind went; zeroed ones take no parameters away."""
    shrinks = units.shrinks(report.spec)
    rows = [_cut_of(size, shrinks=shrinks) for size in report.sizes]
    done = "Removed" if shrinks else "Zeroed"
    columns = ("Units", "Dense", "Left", done, "Parameters that this alone takes")
    yield from table_of(f"{done} units by kind", columns, rows)


def _cut_of(size: SizeReport, *, shrinks: bool) -> tuple[str, ...]:
    per = {"neurons": " per feed-forward", "kv_groups": " per block"}.get(size.kind, "")
    removed = size.before - size.after
    return (
        units.NAMES[size.kind] + per,
        f"{size.before:,}",
        f"{size.after:,}",
        f"{removed:,} {formatting.tied(f'({formatting.percent(removed / size.before)})')}",
        f"{size.parameters_removed:,}" if shrinks else "",
    )


def _speed(speed: SpeedReport | None) -> Iterator[Table]:
    if speed is None:
        return
    caption = (
        f"Tokens per second: {speed.prompt_tokens:,} read at once (prefill), "
        f"{speed.new_tokens:,} written one by one (decode)"
    )
    if speed.ratios:
        caption += f"; both models in turn, {speed.rounds:,} rounds"
    rows = [_rate(speed, phase) for phase in formatting.PHASES]
    columns = ("Phase", "Dense", "Pruned", "Pruned over dense", "In words")
    yield from table_of(caption, columns, rows)


def _rate(speed: SpeedReport, phase: formatting.Phase) -> tuple[str, ...]:
    dense = getattr(speed.dense, phase) if speed.dense else None
    ratio = speed.ratios.get(phase)
    return (
        phase.capitalize(),
        formatting.with_interval(dense, None),
        formatting.number(getattr(speed.pruned, phase)),
        formatting.with_interval(ratio.value, ratio.interval) if ratio else "",
        formatting.judged_speed(speed, phase),
    )


def matrices_section(report: Report) -> Section:
    """Return what became of single weights, kind by kind."""
    removed = by_kind(report, lambda matrix: matrix.sparsity)
    errors = by_kind(report, lambda matrix: matrix.error)
    rows = [
        (
            kind,
            f"{len(line):,}",
            _span(line.values(), formatting.percent),
            _span(errors.get(kind, {}).values(), formatting.number),
        )
        for kind, line in removed.items()
    ]
    columns = ("Kind", "Blocks", "Removed", "Relative output error")
    caption = "Pruned matrices by kind: range over the blocks"
    folded = (*matrix_grids(report), *_reconstructed(report))
    tables = (*table_of(caption, columns, rows), *largest_errors(report))
    return Section("matrices", "Matrices", tables=tables, folded=folded)


def _span(values: Collection[float], shown: Callable[[float], str]) -> str:
    if not values:
        return ""
    return " to ".join(dict.fromkeys((shown(min(values)), shown(max(values)))))


def _reconstructed(report: Report) -> Iterator[Folded]:
    rows = [
        (
            str(block.block),
            f"{trained.steps:,}",
            formatting.number(trained.loss_before),
            formatting.number(trained.loss_after),
        )
        for block in report.blocks
        if (trained := block.reconstruction) is not None
    ]
    columns = ("Block", "Steps", "Loss before", "Loss after")
    for table in table_of(
        "Block reconstruction: mean squared error on held-out text", columns, rows
    ):
        yield Folded("What training each block gained", table)


def units_section(report: Report) -> Section:
    """Return what was removed whole, kind by kind, and which blocks went."""
    tables = (*_units_of_blocks(report), *_whole_blocks(report), *_coverage(report))
    notes = (DENSE_TARGET_NOTE,) if _against_dense(report) else ()
    return Section("units", "Units", notes, tables, folded=(*unit_grids(report),))


def _against_dense(report: Report) -> bool:
    """Return whether read-outs were fitted to, and compared with, the dense model's outputs."""
    refit = report.spec.refit
    fitted = report.spec.fits_modules or (refit is not None and refit.target == "dense")
    return fitted and any(block.units for block in report.blocks)


def _units_of_blocks(report: Report) -> Iterator[Table]:
    errors = units_by_kind(report, lambda unit: unit.error)
    before = units_by_kind(report, lambda unit: unit.error_before_refit)
    units_of_kind: dict[str, list[UnitReport]] = {}
    for block in report.blocks:
        for unit in block.units:
            units_of_kind.setdefault(units.NAMES[unit.kind], []).append(unit)
    blocks = units_by_kind(report, lambda unit: unit.removed)
    rows = [
        (
            kind,
            f"{len(blocks[kind]):,}",
            _span([unit.removed for unit in parts], _counted),
            _span([unit.of for unit in parts], _counted),
            _span(errors.get(kind, {}).values(), formatting.number),
            _span(before.get(kind, {}).values(), formatting.number),
            _span([unit.ridge for unit in parts if unit.ridge is not None], "{:g}".format),
        )
        for kind, parts in units_of_kind.items()
    ]
    done = "Removed" if units.shrinks(report.spec) else "Zeroed"
    columns = (
        "Kind",
        "Blocks",
        done,
        "Of",
        "Relative output error",
        "Before what is left was fitted",
        "Ridge of the fit",
    )
    yield from table_of("Units within blocks: range over the blocks", columns, rows)


def _whole_blocks(report: Report) -> Iterator[Table]:
    done = "removed" if units.shrinks(report.spec) else "zeroed"
    if report.removed_blocks:
        runs = ", ".join(_runs(report.removed_blocks))
        rows = ((f"Blocks {done}, counted from 0", runs),)
        yield from table_of(f"Whole blocks {done}", ("", ""), rows, is_text=True)


def _coverage(report: Report) -> Iterator[Table]:
    """Yield how much of the evaluated text is in the tokens that stay."""
    rows = [
        (
            naming.file_name(report, coverage.task),
            f"{coverage.tokens:,}",
            formatting.percent(coverage.kept),
            "" if coverage.tokens_after is None else f"{coverage.tokens_after:,}",
        )
        for coverage in report.vocabulary
    ]
    columns = ("Task", "Tokens", "Of them in the vocabulary", "Tokens of the same text now")
    yield from table_of("Evaluated text and the tokens that stay", columns, rows)


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    """Yield ascending numbers with neighbours taken together: `3`, `7 to 9`."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    for start, end in zip(starts, ends, strict=True):
        yield str(start) if start == end else f"{start} to {end}"


def recovery_section(report: Report) -> Section:
    """Return what fine-tuning gained."""
    tuning = report.recovery
    if tuning is None:
        return Section("recovery", "Recovery")
    kept = f"those of step {tuning.best_step:,}" if tuning.best_step else "the pruned model's"
    losses = "weighted with the distance to the dense model" if tuning.distilled else "per token"
    rows = (
        ("Method", tuning.method),
        ("Validation loss of the pruned model", formatting.number(tuning.loss_before)),
        ("Validation loss after fine-tuning", formatting.number(tuning.loss_after)),
        ("Steps", f"{tuning.steps:,}"),
        ("Passes over the training text", formatting.given(tuning.epochs)),
        ("Stopped because", STOPPED[tuning.stopped]),
        ("Weights kept", kept),
        ("Distilled from the dense model", "yes" if tuning.distilled else "no"),
        ("Training windows", f"{tuning.windows:,} ({tuning.tokens:,} tokens)"),
        ("Tokens that the steps saw", f"{tuning.trained_tokens:,}"),
        (
            "Validation windows",
            f"{tuning.validation_windows:,} ({tuning.validation_tokens:,} tokens), read {tuning.validations:,} times",
        ),
        ("Precision of products", tuning.precision),
        ("Time", formatting.seconds(tuning.seconds)),
    )
    caption = f"What fine-tuning gained; loss is negative log-likelihood, {losses}"
    drawn = recovery(tuning)
    return Section(
        "recovery",
        "Recovery",
        notes=_without_gain(tuning),
        tables=(*table_of(caption, ("", ""), rows),),
        plots=() if drawn is None else (drawn,),
    )


def _without_gain(tuning: RecoveryReport) -> tuple[str, ...]:
    if tuning.best_step:
        return ()
    return ("No step of fine-tuning beat the pruned model, which was handed on as it was.",)
