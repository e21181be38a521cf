"""What the command line shows people; tables and bars go to the terminal, JSON goes to programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from secateur.errors import ApiError, SecateurError
from secateur.models import Axis, Inspection, Job

PIPED_WIDTH = 200
MAX_LISTED = 8
"""Longer lists of sizes are shown by their ends."""
UNITS = {
    "hidden": "residual dimensions",
    "neurons": "neurons per feed-forward",
    "kv_groups": "key-value groups per block",
    "layers": "blocks",
    "vocabulary": "tokens",
}

out = Console(soft_wrap=True, highlight=False)
if not out.is_terminal:
    out.width = PIPED_WIDTH
err = Console(stderr=True, soft_wrap=True, highlight=False)


class TimeLeft(ProgressColumn):
    """The server's own estimate, which knows the phases still to come."""

    def render(self, task: Task) -> Text:
        """Return `3:05 left`, or nothing while it is unknown."""
        seconds = task.fields.get("seconds")
        return Text("" if seconds is None else f"{timedelta(seconds=round(seconds))} left")


def error(problem: SecateurError) -> None:
    """Show code, detail, fields at fault, what to try."""
    err.print(Text.assemble((problem.code, "bold red"), " ", problem.detail))
    if isinstance(problem, ApiError):
        for field in problem.errors[1:]:
            place = field.get("pointer") or field.get("parameter") or ""
            err.print(Text(f"  {place}: {field.get('detail')}"))
    for suggestion in problem.suggestions:
        err.print(Text(f"  - {suggestion}"))
    if isinstance(problem, ApiError) and problem.status >= 500:
        err.print(Text(f"  request {problem.request_id}"))


def follow(jobs: Iterable[Job]) -> Job:
    """Show a bar until the job has ended; return it as it ended."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[steps]}"),
        TimeLeft(),
    )
    job: Job | None = None
    with Progress(*columns, console=err) as progress:
        bar = progress.add_task("", total=100, steps="", seconds=None)
        for job in jobs:
            progress.update(bar, **_bar_fields(job))
    assert job is not None
    return job


def _bar_fields(job: Job) -> dict[str, Any]:
    now = job.progress
    if job.is_finished or now is None:
        position = job.queue.get("position")
        waiting = f"queued, number {position}" if position else job.status
        done = 100 if job.status == "succeeded" else None
        fields = {"description": waiting, "steps": "", "seconds": None}
        return fields if done is None else {**fields, "completed": done}
    return {
        "description": job.status if job.status != "running" else now.phase,
        "completed": now.percent,
        "steps": f"{now.unit} {now.step}/{now.total_steps}" if now.total_steps else "",
        "seconds": now.seconds_remaining,
    }


@contextmanager
def transfer(total: int, what: str = "downloading") -> Iterator[Progress]:
    """Show a bar of bytes; its only task is number 0."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err) as progress:
        progress.add_task("", total=total)
        yield progress


def job(shown: Job) -> None:
    """Show one job."""
    facts(_facts(shown))
    if shown.error:
        out.print(Text(f"{shown.error.get('code')}: {shown.error.get('detail')}", style="red"))
        for suggestion in shown.error.get("suggestions", ()):
            out.print(Text(f"  - {suggestion}"))


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
    table = Table("", "before", "after", "p-value")
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


def _by_chance(gate: Mapping[str, Any]) -> str:
    """Say so where the interval of a gate's figure lies on both sides of a bound; reports of old have none."""
    found = gate.get("interval")
    bounds = [gate[bound] for bound in ("min", "max") if gate[bound] is not None]
    close = found and any(found["low"] <= bound <= found["high"] for bound in bounds)
    return ", within chance" if close else ""


def _before_and_after(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield what every report has, and what newer ones add; the p-value where there is a test."""
    yield from _sizes(content)
    for line in content["perplexity"]:
        yield from _perplexity(line)
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


def inspection(found: Inspection) -> None:
    """Show what a model is, the sizes that it can be cut to, and the methods that can do so."""
    commit = f" at {found.commit}" if found.commit else ""
    tied = "tied" if found.tied_embeddings else "not tied"
    shared = f"{found.query_heads_per_group} for each key-value head"
    facts(
        (
            ("model", f"{found.ref}{commit}"),
            ("architecture", f"{found.architecture} (family {found.family})"),
            ("parameters", f"{found.parameters:,}"),
            ("bytes", f"{found.bytes:,} ({found.dtype})"),
            ("blocks", found.blocks),
            ("query heads", f"{found.query_heads} of {found.head_dim} channels, {shared}"),
            ("embeddings", f"{tied}; windows of at most {found.max_positions:,} tokens"),
        )
    )
    out.print()
    columns = ("units", "now", "parameters each", "most that can go", "can be kept")
    rows(columns, (line for axis in found.axes for line in _axis_lines(axis)))
    out.print()
    for axis in found.axes:
        told = axis.rule if axis.removable else f"none can go: {axis.reason}"
        out.print(Text(f"{axis.title}: {told}"))
    out.print()
    methods = ((m.name, " ".join(m.units) or "none", m.reason or "") for m in found.methods)
    rows(("method", "can remove", "cannot"), methods)


def _axis_lines(axis: Axis) -> Iterator[Sequence[object]]:
    """Yield a line for every `multiple_of`; those after the first have the sizes alone."""
    each = (axis.title, f"{axis.size:,}", f"{axis.unit_parameters:,}")
    if not axis.removable:
        yield *each, "-", "all"
        return
    sizes = [_kept_text(kept) for kept in axis.kept]
    yield *each, f"{axis.largest_share:.1%}", sizes[0]
    for further in sizes[1:]:
        yield "", "", "", "", further


def _kept_text(kept: Mapping[str, Any]) -> str:
    multiple = "" if kept["multiple_of"] is None else f"multiples of {kept['multiple_of']}: "
    listed = kept["sizes"]
    if listed is None or len(listed) > MAX_LISTED:
        step = f", in steps of {kept['step']:,}" if kept["step"] else f", {kept['count']:,} sizes"
        return f"{multiple}{kept['from']:,} to {kept['to']:,}{step}"
    each = (f"{one['size']:,} (-{one['share']:.1%})" for one in listed)
    return multiple + (", ".join(each) or "none")


def facts(lines: Iterable[tuple[str, object]]) -> None:
    """Show names and values."""
    table = Table.grid(padding=(0, 2))
    for name, value in lines:
        table.add_row(Text(name, style="bold"), Text(str(value)))
    out.print(table)


def rows(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Show a table."""
    table = Table(*columns, box=None, pad_edge=False)
    for line in lines:
        table.add_row(*(Text(str(cell)) for cell in line))
    out.print(table)


def json_text(text: str) -> None:
    """Write JSON for programs, as it is."""
    out.print(text, markup=False, emoji=False)
