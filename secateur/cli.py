"""The command line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from pruning_core.spec.methods import COEFFICIENTS
from secateur import cli_files, quantities, render, serve
from secateur.client import Client
from secateur.config import DEFAULT_PORT, data_dir
from secateur.errors import SecateurError
from secateur.models import Job, Preset, Task

app = typer.Typer(
    help="Prune large language models on a Secateur server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(cli_files.app, name="files")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs")]
_N_OF_M = re.compile(r"^(?P<n>\d{1,4}):(?P<m>\d{1,4})$")
_GATE = re.compile(r"^(?P<metric>[\w.:\-]+)\s*(?P<sign><=|>=)\s*(?P<bound>\S+)$")
_LABEL = re.compile(r"^(?P<key>[^=]+)=(?P<value>.*)$")


def main() -> None:
    """Run the command line; every error of the client is one readable block and exit status 1."""
    try:
        app()
    except SecateurError as error:
        render.error(error)
        sys.exit(1)


@app.command("serve")
def serve_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = DEFAULT_PORT,
    data: Annotated[
        Path | None, typer.Option("--data-dir", help="Database, results, work, credentials")
    ] = None,
    model_root: Annotated[
        list[Path] | None, typer.Option(help="A folder whose models may be pruned; repeatable")
    ] = None,
    tasks_dir: Annotated[
        Path | None, typer.Option(help="A folder with one folder per calibration task")
    ] = None,
) -> None:
    """Run the whole service on this machine: no database server, no broker."""
    options = serve.Options(
        data_dir=(data or data_dir()).expanduser().absolute(),
        port=port,
        model_roots=tuple(path.expanduser().absolute() for path in model_root or ()),
        tasks_dir=tasks_dir.expanduser().absolute() if tasks_dir else None,
    )
    raise typer.Exit(serve.run(options))


@app.command()
def submit(
    model: Annotated[str, typer.Option(help="hf://org/name@revision, file:///path, or a path")],
    method: Annotated[str, typer.Option(help="One of `secateur methods`")],
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Share of the weights that becomes zero: 0.5; of methods that remove units, "
            "share of the model's parameters that goes"
        ),
    ] = None,
    parameters: Annotated[
        str | None,
        typer.Option(help="Size of the result, for methods that remove units: 100M, 1.2B"),
    ] = None,
    bytes_: Annotated[
        str | None, typer.Option("--bytes", help="The same in bytes: 250M, 1.2GB, 1.2GiB")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="row, matrix, units, or N:M (N kept of M)")
    ] = None,
    calibration: Annotated[
        list[str] | None, typer.Option(help="One of `secateur tasks`; repeatable")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Calibration windows per task")] = None,
    seq_len: Annotated[int | None, typer.Option(help="Tokens per calibration window")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides which text is drawn")] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(help="A task to measure before and after; repeatable. Unset: what calibrates"),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="A bound, else the job fails: 'wikitext2.ppl_ratio<=1.15'; repeatable"),
    ] = None,
    eval_windows: Annotated[int | None, typer.Option(help="Windows for perplexity")] = None,
    eval_seq_len: Annotated[int | None, typer.Option(help="Tokens per such window")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other field of `prune`: method.preset=smollm2-135m, allocation=owl, "
            "refinement='[\"dsnot\"]'; repeatable",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="For people")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; repeatable")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the job until it has ended")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job."""
    asked: dict[str, Any] = {
        "method": {"name": method},
        "sparsity": sparsity,
        "budget": {
            "parameters": _number(parameters, quantities.parameters, "--parameters"),
            "bytes": _number(bytes_, quantities.byte_count, "--bytes"),
        },
        "pattern": _pattern(pattern),
        "calibration": {
            "tasks": [{"name": task, "samples": samples} for task in calibration or ()],
            "samples": None if calibration else samples,
            "seq_len": seq_len,
            "seed": seed,
        },
        "evaluation": {"tasks": evaluate or None, "windows": eval_windows, "seq_len": eval_seq_len},
        "gates": [_gate(bound) for bound in gate or ()],
    }
    prune = _without_unset(asked)
    for assignment in set_ or ():
        _assign(prune, assignment)
    with Client() as client:
        job = client.submit(_model_ref(model), prune, name=name, labels=_labels(label))
        if wait:
            render.err.print(f"submitted {job.id}")
            _end(client, render.follow(client.follow(job.id)), as_json=as_json)
        elif as_json:
            render.json_text(job.model_dump_json())
        else:
            render.out.print(job.id)


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="queued, running, succeeded, ...")] = None,
    method: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option(help="The ref, as `show` gives it")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; repeatable")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with Client() as client:
        jobs = list(
            client.jobs(
                status=status, method=method, model=model, labels=_labels(label), limit=limit
            )
        )
    if as_json:
        _json_list(jobs)
        return
    render.rows(("job", "status", "method", "amount", "model", "created"), map(_line, jobs))


@app.command()
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job, with its report where it left a result."""
    with Client() as client:
        job = client.get(job_id)
        if as_json:
            render.json_text(job.model_dump_json())
            return
        render.job(job)
        if job.result is not None:
            render.report(client.report(job_id))


@app.command()
def report(
    job_id: JobId,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write the page with plots to this file, - for stdout"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a job has won and lost."""
    with Client() as client:
        if html == Path("-"):
            render.json_text(client.report_page(job_id))
            return
        if html is not None:
            html.write_text(client.report_page(job_id), encoding="utf-8")
            render.err.print(f"wrote {html}", markup=False)
            if not as_json:
                return
        content = client.report(job_id)
    if as_json:
        render.json_text(json.dumps(content))
    else:
        render.report(content)


@app.command()
def watch(job_id: JobId, as_json: AsJson = False) -> None:
    """Watch a job until it has ended; with --json print its events as they happen."""
    with Client() as client:
        if not as_json:
            _end(client, render.follow(client.follow(job_id)), as_json=False)
            return
        for event in client.watch(job_id):
            render.json_text(event.model_dump_json())
        client.get(job_id).raise_for_status()


@app.command()
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with Client() as client:
        job = client.cancel(job_id)
    if as_json:
        render.json_text(job.model_dump_json())
    else:
        render.out.print(job.status)


@app.command()
def download(
    job_id: JobId,
    destination: Annotated[
        Path | None, typer.Argument(help="A new folder; unset: named after the job")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download the pruned checkpoint; take up a download that broke off; check every sha256."""
    with Client() as client:
        manifest = client.manifest(job_id)
        with render.transfer(manifest.total_bytes) as bar:
            folder = client.download(
                job_id, destination, on_bytes=lambda count: bar.advance(bar.task_ids[0], count)
            )
    if as_json:
        render.json_text(json.dumps({"job": job_id, "checkpoint": str(folder)}))
    else:
        count = len(manifest.files)
        render.out.print(f"{folder}: {count} files, every sha256 as in the manifest", markup=False)


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="hf://org/name@revision, file:///path, or a path")
    ],
    multiple_of: Annotated[
        list[int] | None,
        typer.Option(help="Of which widths shall be multiples; repeatable. Unset: 8, 64, 128"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what can be cut from a model, and to which sizes."""
    with Client() as client:
        found = client.inspect(_model_ref(model), multiple_of=multiple_of or ())
    if as_json:
        render.json_text(found.model_dump_json())
    else:
        render.inspection(found)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List the pruning methods."""
    with Client() as client:
        found = client.methods()
    if as_json:
        _json_list(found)
        return
    lines = ((m.name, m.default_pattern, " ".join(m.patterns), m.summary) for m in found)
    render.rows(("method", "default", "patterns", "what it does"), lines)


@app.command()
def tasks(as_json: AsJson = False) -> None:
    """List the tasks that calibrate and evaluate, and whether their data can be had."""
    with Client() as client:
        found = client.tasks()
    if as_json:
        _json_list(found)
        return
    columns = ("task", "kind", "data", "calibration bytes", "evaluation bytes", "what it is")
    render.rows(columns, map(_task_line, found))


@app.command()
def presets(as_json: AsJson = False) -> None:
    """List the presets of CRePE's coefficients."""
    with Client() as client:
        found = client.presets()
    if as_json:
        _json_list(found)
        return
    columns = ("preset", *COEFFICIENTS, "job", "where it comes from")
    render.rows(columns, map(_preset_line, found))


def _end(client: Client, job: Job, *, as_json: bool) -> None:
    """Show how the job ended; one that did not succeed is an error, after the report if it left one."""
    if as_json:
        render.json_text(job.model_dump_json())
    elif job.result is not None:
        render.job(job)
        render.report(client.report(job.id))
    job.raise_for_status()


def _model_ref(model: str) -> str:
    if "://" in model:
        return model
    path = Path(model).expanduser()
    return path.absolute().as_uri() if path.exists() else model


def _gate(text: str) -> dict[str, Any]:
    found = _GATE.match(text)
    if found is None:
        raise typer.BadParameter(f"--gate {text!r} is not METRIC<=NUMBER or METRIC>=NUMBER")
    try:
        bound = float(found["bound"])
    except ValueError:
        raise typer.BadParameter(f"--gate {text!r}: {found['bound']!r} is no number") from None
    return {"metric": found["metric"], "max" if found["sign"] == "<=" else "min": bound}


def _number(text: str | None, parse: Callable[[str], int], option: str) -> int | None:
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _pattern(text: str | None) -> dict[str, Any] | str | None:
    match = _N_OF_M.match(text or "")
    return {"name": "n:m", "n": int(match["n"]), "m": int(match["m"])} if match else text


def _assign(prune: dict[str, Any], assignment: str) -> None:
    """Set a field by its dotted path; the value is JSON, or text where it is none."""
    path, equals, text = assignment.partition("=")
    *parents, field = path.split(".")
    for parent in parents:
        below = prune.setdefault(parent, {})
        if not isinstance(below, dict):
            raise typer.BadParameter(f"{parent} of {path} is no object", param_hint="--set")
        prune = below
    if not equals or not field:
        raise typer.BadParameter("an assignment is field=value", param_hint="--set")
    try:
        prune[field] = json.loads(text)
    except ValueError:
        prune[field] = text


def _labels(given: Sequence[str] | None) -> dict[str, str]:
    matches = [_LABEL.match(label) for label in given or ()]
    if None in matches:
        raise typer.BadParameter("a label is key=value", param_hint="--label")
    return {match["key"]: match["value"] for match in matches if match}


def _without_unset(value: Any) -> Any:
    """Leave out what was not given, so that the server's defaults hold."""
    if not isinstance(value, dict):
        return value
    kept = {key: _without_unset(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item not in (None, {}, [])}


def _line(job: Job) -> tuple[object, ...]:
    prune = job.spec.get("prune", {})
    return (
        job.id,
        job.status,
        prune.get("method", {}).get("name"),
        render.amount(prune),
        job.spec.get("model", {}).get("ref"),
        f"{job.created_at:%Y-%m-%d %H:%M:%S}",
    )


def _task_line(task: Task) -> tuple[object, ...]:
    sizes = (task.calibration_bytes, task.evaluation_bytes)
    shown = ("?" if size is None else size for size in sizes)
    data = task.origin if task.reachable else f"{task.origin}, out of reach"
    return (task.name, task.kind, data, *shown, task.description)


def _preset_line(preset: Preset) -> tuple[object, ...]:
    values = (preset.coefficients.get(name) for name in COEFFICIENTS)
    shown = (f"{value:.4g}" if isinstance(value, float) else value for value in values)
    return (preset.name, *shown, preset.job_id or "-", preset.found)


def _json_list(items: Sequence[BaseModel]) -> None:
    render.json_text(json.dumps([item.model_dump(mode="json") for item in items]))


if __name__ == "__main__":
    main()
