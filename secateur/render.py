"""What the command line shows people; tables and bars go to the terminal, JSON goes to programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from secateur import flags
from secateur.models import Job
from secateur.terminal import Visible

PIPED_WIDTH = 10_000
"""Without a terminal a row is one line, however long."""
UNITS = {
    "hidden": "residual dimensions",
    "neurons": "neurons per feed-forward",
    "kv_groups": "key-value groups per block",
    "layers": "blocks",
    "vocabulary": "tokens",
}

out = Visible(soft_wrap=True, highlight=False)
if not out.is_terminal:
    out.width = PIPED_WIDTH
err = Visible(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def transfer(total: int, what: str = "downloading", *, hidden: bool = False) -> Iterator[Progress]:
    """Show a bar of bytes; its only task is number 0."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, disable=hidden) as progress:
        progress.add_task("", total=total)
        yield progress


def job(shown: Job) -> None:
    """Show one job."""
    facts(_facts(shown))
    if shown.error:
        out.print(Text(f"{shown.error.get('code')}: {shown.error.get('detail')}", style="red"))
        for suggestion in shown.error.get("suggestions", ()):
            out.print(Text(f"  - {suggestion}"))


def notes(shown: Job) -> Iterator[str]:
    """Yield what was decided at submit in the user's place, and how long the job may take."""
    yield from map(flags.in_words, shown.notes)
    expected = shown.estimate or {}
    if expected.get("minutes"):
        yield f"expected to take {_span(**expected['minutes'])}: {expected['basis']}"
    elif expected:
        yield f"how long it takes is not known: {expected['basis']}"


def _span(low: float, high: float) -> str:
    """Return a range of minutes, in hours where it is long, in no more digits than it has."""
    unit, factor = ("hours", 60) if high > 120 else ("minutes", 1)
    return f"{low / factor:.2g} to {high / factor:.2g} {unit}"


def quality(shown: Job) -> str:
    """Return what was measured before and after, task by task; nothing before a job has a result."""
    measured = (shown.result or {}).get("quality") or {}
    return "; ".join(f"{task} {_change(figures)}" for task, figures in measured.items())


def _change(figures: Mapping[str, float | None]) -> str:
    """Return `ppl 17.1 to 28.9`; the accuracy of questions in per cent."""
    kind, factor, unit = ("ppl", 1, "") if "ppl_pruned" in figures else ("acc", 100, " %")
    values = (figures.get(f"{kind}_{model}") for model in ("dense", "pruned"))
    return f"{kind} " + " to ".join(
        _rounded(factor * value) + unit for value in values if value is not None
    )


def _facts(shown: Job) -> Iterator[tuple[str, object]]:
    prune = shown.spec.get("prune", {})
    yield "job", shown.id
    if shown.name:
        yield "name", shown.name
    yield "status", shown.status + (f" ({shown.status_reason})" if shown.status_reason else "")
    if shown.progress and not shown.is_finished:
        yield "progress", f"{shown.progress.phase}, {shown.progress.percent:.0f} %"
    yield "model", shown.spec.get("model", {}).get("ref")
    yield "method", f"{prune.get('method', {}).get('name')}, {amount(prune)}"
    if quality(shown):
        yield "quality", quality(shown)
    for note in notes(shown):
        yield "note", note
    yield "created", f"{shown.created_at:%Y-%m-%d %H:%M:%S} UTC"
    if shown.started_at and shown.finished_at:
        yield (
            "took",
            timedelta(seconds=round((shown.finished_at - shown.started_at).total_seconds())),
        )
    for name, value in (shown.result or {}).items():
        if isinstance(value, int | float | str):
            yield name.replace("_", " "), value


def amount(prune: Mapping[str, Any]) -> str:
    """Return how much is removed, and within what."""
    pattern = prune.get("pattern", {})
    if pattern.get("name") == "n:m":
        return f"{pattern.get('n')}:{pattern.get('m')} kept"
    if pattern.get("name") == "units":
        return _units_asked(prune) + (", zeroed" if pattern.get("mode") == "zero" else "")
    return f"{100 * prune.get('sparsity', 0):g} % per {pattern.get('name')}"


def _units_asked(prune: Mapping[str, Any]) -> str:
    """Return how much of the model a job removes whole: a share, down to a budget, or by the method's threshold."""
    if prune.get("sparsity") is not None:
        return f"{100 * prune['sparsity']:g} % of the model"
    for unit, size in (prune.get("budget") or {}).items():
        if size is not None:
            return f"to {size:,} {unit}"
    return "by threshold"


def report(content: Mapping[str, Any]) -> None:
    """Show before and after, what fine-tuning gained, how the gates went, and every warning."""
    content = _with_names(content)
    if content.get("summary"):
        out.print(Text(content["summary"], style="bold"))
    table = Table(*(Column(name, overflow="fold") for name in ("", "before", "after", "p-value")))
    for line in _before_and_after(content):
        table.add_row(*map(Text, line))
    out.print(table)
    recovery = content.get("recovery")
    if recovery:
        out.print(Text(_recovery(recovery)))
    for gate in content.get("gates", ()):
        result, style = ("passed", "green") if gate["passed"] else ("missed", "red")
        asked = " and ".join(
            f"{word} {gate[bound]:g}"
            for bound, word in (("min", "at least"), ("max", "at most"))
            if gate[bound] is not None
        )
        told = f"gate {gate['metric']}: {gate['value']:.4g}, {asked} was asked for: {result}"
        out.print(Text(told + _by_chance(gate), style=style))
    for warning in content["warnings"]:
        out.print(Text(f"note: {warning}", style="yellow"))


def _with_names(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the report with uploaded files called by their senders' names too; reports of old know none."""
    names = {entry["task"]: entry["file"] for entry in content.get("data", ()) if entry.get("file")}

    def named(line: Mapping[str, Any]) -> dict[str, Any]:
        task = line["task"]
        return {**line, "task": f"{names[task]} ({task})" if task in names else task}

    def gate(line: Mapping[str, Any]) -> dict[str, Any]:
        task, _, figure = line["metric"].rpartition(".")
        return {**line, "metric": f"{names[task]}.{figure}" if task in names else line["metric"]}

    shown = {kind: [*map(named, content.get(kind, ()))] for kind in ("perplexity", "accuracy")}
    return {**content, **shown, "gates": [*map(gate, content.get("gates", ()))]}


def _by_chance(gate: Mapping[str, Any]) -> str:
    """Say so where the interval of a gate's figure lies on both sides of a bound; reports of old have none."""
    interval = gate.get("interval")
    bounds = [gate[bound] for bound in ("min", "max") if gate[bound] is not None]
    close = interval and any(interval["low"] <= bound <= interval["high"] for bound in bounds)
    return ", within chance" if close else ""


def _before_and_after(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield what every report has, and what newer ones add; the p-value where there is a test."""
    yield from _sizes(content)
    for line in content["perplexity"]:
        yield from _perplexity(line)
    for line in content.get("vocabulary", ()):
        yield f"tokens kept, {line['task']}", "-", f"{100 * line['kept']:.4g} %"
    for line in content.get("accuracy", ()):
        for measure in ("acc", "acc_norm"):
            p_value = line[measure]["p_value"]
            name = f"{measure}, {line['task']} ({line['items']} items)"
            tested = () if p_value is None else (f"{p_value:.3g}",)
            yield name, *_both(line[measure], 100, " %"), *tested
    for line in content.get("harness", ()):
        yield f"{line['metric']}, {line['task']} (lm_eval)", *_both(line, 1, "")
    speed: Mapping[str, Any] = content.get("speed") or {}
    for phase, pruned in speed.get("pruned", {}).items():
        dense = speed["dense"][phase] if speed["dense"] else None
        yield f"{phase}, tokens per second", *_both({"dense": dense, "pruned": pruned}, 1, "")
        yield from _speed_ratio(speed, phase)


def _speed_ratio(speed: Mapping[str, Any], phase: str) -> Iterator[tuple[str, ...]]:
    """Yield how the two compare; reports of old do not say."""
    measured = speed.get("ratios", {}).get(phase)
    if measured is not None:
        doubt = " (not reliably measured)" if speed["doubts"] else ""
        ratio = {
            "dense": None,
            "pruned": measured["value"],
            "pruned_interval": measured["interval"],
        }
        yield f"{phase}, pruned over dense{doubt}", *_both(ratio, 1, "")


def _shrinks(content: Mapping[str, Any]) -> bool:
    """Return whether units went; reports of old have none."""
    pattern = content.get("spec", {}).get("pattern", {})
    return bool(pattern.get("name") == "units" and pattern.get("mode") == "remove")


def _sizes(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    bytes_before, before = content["bytes_before"], content["parameters"]
    if not _shrinks(content):
        yield "bytes", f"{bytes_before:,}", f"{content['bytes_after']:,}"
        yield "parameters not zero", f"{before:,}", f"{content['parameters_nonzero']:,}"
    else:
        yield "bytes", f"{bytes_before:,}", _fewer(bytes_before, content["bytes_after"])
        yield "parameters", f"{before:,}", _fewer(before, content["parameters_after"])
    if gguf := content.get("gguf"):
        yield f"bytes of {gguf['file']}", "", f"{gguf['bytes']:,}"
    for size in content.get("sizes", ()):
        after = f"{size['after']:,}" + ("" if _shrinks(content) else " not zeroed")
        yield UNITS.get(size["kind"], size["kind"]), f"{size['before']:,}", after


def _fewer(before: int, after: int) -> str:
    return f"{after:,} ({100 * (1 - after / before):.3g} % fewer)"


def _perplexity(line: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    name = f"perplexity, {line['task']} ({line['tokens']} tokens)"
    yield name, *_both(line, 1, "")
    if line.get("ratio") is not None:
        ratio = {"dense": None, "pruned": line["ratio"]}
        interval = {"pruned_interval": line["ratio_interval"]}
        unsure = "" if line["ratio_interval"] else f" (too few {line['resampled']} to tell)"
        yield f"pruned over dense, {line['task']}{unsure}", *_both(ratio | interval, 1, "")
    if line.get("bits_per_byte_pruned") is not None:
        bits = {model: line[f"bits_per_byte_{model}"] for model in ("dense", "pruned")}
        yield f"bits per byte, {line['task']}", *_both(bits, 1, "")


def _recovery(recovery: Mapping[str, Any]) -> str:
    """Return what fine-tuning gained in one line."""
    before, after = (_rounded(recovery[name]) for name in ("loss_before", "loss_after"))
    told = f"fine-tuned ({recovery['method']}): validation loss {before} before, {after} after"
    undone = "" if recovery["best_step"] else "; nothing beat the pruned model, which was kept"
    return f"{told}, {recovery['steps']:,} steps, stopped by {recovery['stopped']}{undone}"


def _both(figure: Mapping[str, Any], factor: float, unit: str) -> Iterator[str]:
    """Yield a figure of both models, each with its interval where there is one."""
    for model in ("dense", "pruned"):
        value, interval = figure[model], figure.get(f"{model}_interval")
        if value is None:
            yield "-"
        elif interval is None:
            yield f"{_rounded(factor * value)}{unit}"
        else:
            low, high = (_rounded(factor * interval[end]) for end in ("low", "high"))
            yield f"{_rounded(factor * value)}{unit} ({low} to {high})"


def _rounded(value: float) -> str:
    """Return four digits that mean something, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def facts(lines: Iterable[tuple[str, object]]) -> None:
    """Show names and values."""
    table = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2))
    for name, value in lines:
        table.add_row(Text(name, style="bold"), Text(str(value)))
    out.print(table)


def rows(
    columns: Sequence[str], lines: Iterable[Sequence[object]], *, ids: Collection[str] = ()
) -> None:
    """Show a table; what has no room is folded, but for ids, and nothing is cut."""
    cells = [tuple(map(str, line)) for line in lines]
    widths = {
        name: max(map(len, column)) for name, *column in zip(columns, columns, *cells, strict=True)
    }
    shown = (
        Column(name, overflow="fold", min_width=widths[name] if name in ids else None)
        for name in columns
    )
    out.print(_filled(Table(*shown, box=None, pad_edge=False), cells))


def records(columns: Sequence[str], lines: Iterable[Sequence[object]], *, headed: int) -> None:
    """Show a table, or where it has no room a block for each line, headed by its first cells; nothing is cut."""
    cells = [tuple(map(str, line)) for line in lines]
    table = _filled(Table(*columns, box=None, pad_edge=False), cells)
    unbounded = out.options.update(max_width=PIPED_WIDTH)
    if Measurement.get(out, unbounded, table).maximum <= out.width:
        out.print(table)
        return
    for row in cells:
        out.print(Text("  ".join(filter(None, row[:headed])), style="bold"))
        named = zip(columns[headed:], row[headed:], strict=True)
        shown = Text(", ".join(f"{name}: {cell}" for name, cell in named if cell))
        out.print(Padding(shown, (0, 0, 0, 4)), soft_wrap=False)


def _filled(table: Table, cells: Iterable[Sequence[str]]) -> Table:
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def json_text(text: str) -> None:
    """Write JSON for programs, as it is."""
    sys.stdout.write(text + "\n")


def json_list(items: Iterable[BaseModel]) -> None:
    """Write a list for programs."""
    json_text(json.dumps([item.model_dump(mode="json") for item in items]))


def line(text: str) -> None:
    """Write a line to stderr now, as it is."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
