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
from secateur.models import Job

PIPED_WIDTH = 200

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
    return f"{100 * prune.get('sparsity', 0):g} % per {pattern.get('name')}"


def report(content: Mapping[str, Any]) -> None:
    """Show before and after, how the gates went, and every warning."""
    table = Table("", "before", "after", "p-value")
    for line in _before_and_after(content):
        table.add_row(*map(Text, line))
    out.print(table)
    for gate in content.get("gates", ()):
        result, style = ("passed", "green") if gate["passed"] else ("missed", "red")
        asked = " and ".join(
            f"{word} {gate[bound]:g}"
            for bound, word in (("min", "at least"), ("max", "at most"))
            if gate[bound] is not None
        )
        told = f"gate {gate['metric']}: {gate['value']:.4g}, {asked} was asked for: {result}"
        out.print(Text(told, style=style))
    for warning in content["warnings"]:
        out.print(Text(f"note: {warning}", style="yellow"))


def _before_and_after(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield what every report has, and what newer ones add; the p-value where there is a test."""
    yield "bytes", f"{content['bytes_before']:,}", f"{content['bytes_after']:,}"
    nonzero = f"{content['parameters_nonzero']:,}"
    yield "parameters not zero", f"{content['parameters']:,}", nonzero
    for line in content["perplexity"]:
        name = f"perplexity, {line['task']} ({line['tokens']} tokens)"
        yield name, *_both(line, 1, "")
        if line.get("ratio") is not None:
            ratio = {"dense": None, "pruned": line["ratio"]}
            interval = {"pruned_interval": line["ratio_interval"]}
            yield f"pruned over dense, {line['task']}", *_both(ratio | interval, 1, "")
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
