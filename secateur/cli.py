"""The command line."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from secateur import (
    arguments,
    cli_catalogue,
    cli_files,
    cli_serve,
    cli_submit,
    exit_codes,
    following,
    lookup,
    problems,
    render,
)
from secateur.client import Client
from secateur.errors import ConnectionFailed, Interrupted, SecateurError, Usage
from secateur.exit_codes import ExitCode
from secateur.models import Job

app = typer.Typer(
    help="Prune large language models on a Secateur server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve")(cli_serve.serve)
app.command("submit")(cli_submit.submit)
cli_catalogue.install(app)
app.add_typer(cli_files.app, name="files")

JobName = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id, a unique beginning of it, or its name")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs")]


def main() -> None:
    """Run the command line; every error is one readable block, or JSON, and an exit status by its cause."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    as_json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        sys.exit(_ended(_known(error), as_json=as_json))
    if code == ExitCode.INTERRUPTED:
        _ended(Interrupted("stopped", code="INTERRUPTED"), as_json=as_json)
    sys.exit(code)


def _ended(error: SecateurError, *, as_json: bool) -> ExitCode:
    code = exit_codes.of(error)
    if as_json:
        problems.show_json(error, code)
    else:
        problems.show(error)
    return code


def _known(error: Exception) -> SecateurError:
    """Return what users are told of an error; one that is a defect of ours is raised."""
    match error:
        case SecateurError():
            return error
        case typer.Abort():
            return Interrupted("stopped", code="INTERRUPTED")
        case typer.TyperException():
            return Usage(error.format_message(), code="USAGE", suggestions=("add --help",))
        case ValidationError() | json.JSONDecodeError():
            return ConnectionFailed(
                "the server's answer cannot be read: is it a Secateur server?",
                code="ANSWER_UNREADABLE",
                suggestions=("check SECATEUR_URL",),
            )
        case OSError():
            named = f"{error.filename}: " if error.filename else ""
            return SecateurError(f"{named}{error.strerror or error}", code="NOT_POSSIBLE_HERE")
    raise error


def _version(wanted: bool) -> None:
    if wanted:
        render.out.print(f"secateur {version('secateur')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version"),
    ] = False,
) -> None:
    """Prune large language models on a Secateur server."""


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="queued, running, succeeded, ...")] = None,
    method: Annotated[str | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option(help="The ref, as `show` gives it")] = None,
    name: Annotated[str | None, typer.Option(help="The whole name")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; repeatable")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    labels = arguments.labels(label)
    with Client() as client:
        jobs = list(
            client.jobs(
                status=status, method=method, model=model, name=name, labels=labels, limit=limit
            )
        )
    if as_json:
        render.json_list(jobs)
        return
    columns = ("job", "status", "name", "amount", "quality", "model", "created")
    render.records(columns, map(_line, jobs), headed=3)


@app.command()
def show(job: JobName, as_json: AsJson = False) -> None:
    """Show one job, with its report where it left a result."""
    with Client() as client:
        shown = client.get(lookup.job_id(client, job))
        if as_json:
            render.json_text(shown.model_dump_json())
            return
        render.job(shown)
        if shown.result is not None:
            render.report(client.report(shown.id))


@app.command()
def report(
    job: JobName,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write the page with plots to this file, - for stdout"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a job has won and lost."""
    if as_json and html == Path("-"):
        raise arguments.bad("--html -", "the page and --json cannot share stdout")
    with Client() as client:
        job_id = lookup.job_id(client, job)
        if html == Path("-"):
            render.json_text(client.report_page(job_id))
            return
        if html is not None:
            html.write_text(client.report_page(job_id), encoding="utf-8")
            if not as_json:
                render.line(f"wrote {html}")
                return
        content = client.report(job_id)
    if as_json:
        render.json_text(json.dumps(content))
    else:
        render.report(content)


@app.command()
def watch(job: JobName, as_json: AsJson = False) -> None:
    """Watch a job until it has ended; with --json print its events as they happen."""
    with Client() as client:
        watched = client.get(lookup.job_id(client, job))
        if not as_json:
            cli_submit.end(client, following.follow(client.follow(watched.id)), as_json=False)
            return
        try:
            for event in client.watch(watched.id):
                render.json_text(event.model_dump_json())
                sys.stdout.flush()
        except KeyboardInterrupt:
            raise following.interrupted(watched) from None
        client.get(watched.id).raise_for_status()


@app.command()
def cancel(job: JobName, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with Client() as client:
        cancelled = client.cancel(lookup.job_id(client, job))
    if as_json:
        render.json_text(cancelled.model_dump_json())
    else:
        render.out.print(cancelled.status)


@app.command()
def download(
    job: JobName,
    destination: Annotated[
        Path | None, typer.Argument(help="A new folder; unset: named after the job")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download the pruned checkpoint; take up a download that broke off; check every sha256."""
    with Client() as client:
        job_id = lookup.job_id(client, job)
        manifest = client.manifest(job_id)
        with render.transfer(manifest.total_bytes, hidden=as_json) as bar:
            folder = client.download(
                job_id, destination, on_bytes=lambda count: bar.advance(bar.task_ids[0], count)
            )
    if as_json:
        render.json_text(json.dumps({"job": job_id, "checkpoint": str(folder)}))
    else:
        count = len(manifest.files)
        render.out.print(f"{folder}: {count} files, every sha256 as in the manifest", markup=False)


def _line(job: Job) -> tuple[object, ...]:
    prune = job.spec.get("prune", {})
    return (
        job.id,
        job.status,
        job.name or "",
        f"{prune.get('method', {}).get('name')}, {render.amount(prune)}",
        render.quality(job),
        job.spec.get("model", {}).get("ref"),
        f"{job.created_at:%Y-%m-%d %H:%M}",
    )


if __name__ == "__main__":
    main()
