"""`secateur files`: data of your own on the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from secateur import arguments, lookup, render
from secateur.client import Client
from secateur.models import File

app = typer.Typer(help="Upload data of your own, list it, delete it.", no_args_is_help=True)

FileName = Annotated[
    str, typer.Argument(metavar="FILE", help="The file's id, a unique beginning of it, or its name")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs")]


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(help="JSON Lines, a JSON array, CSV, or plain text")],
    use: Annotated[
        str, typer.Option(help="calibration, evaluation, or both (a quarter is held out)")
    ] = "both",
    name: Annotated[str | None, typer.Option(help="For people; unset: the file's own")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file; prints the name by which jobs calibrate and evaluate on it."""
    if not path.is_file():
        what = "is a folder: upload one file" if path.is_dir() else "no such file"
        raise arguments.bad("PATH", f"{path}: {what}")
    size = path.stat().st_size
    with Client() as client, render.transfer(size, "uploading", hidden=as_json) as bar:
        made = client.upload(
            path, use=use, name=name, on_bytes=lambda count: bar.advance(bar.task_ids[0], count)
        )
    if as_json:
        render.json_text(made.model_dump_json())
    else:
        render.out.print(made.task)


@app.command("list")
def list_files(
    use: Annotated[str | None, typer.Option(help="calibration, evaluation or both")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List uploaded files, newest first."""
    with Client() as client:
        files = list(client.files(use=use, limit=limit))
    if as_json:
        render.json_list(files)
        return
    columns = ("task", "name", "use", "kind", "items", "bytes", "created")
    render.records(columns, map(_line, files), headed=2)


@app.command()
def show(file: FileName, as_json: AsJson = False) -> None:
    """Show what is known of one file."""
    with Client() as client:
        shown = client.file(lookup.file_id(client, file))
    if as_json:
        render.json_text(shown.model_dump_json())
        return
    fields = ("task", "name", "use", "format", "kind", "items", "bytes", "sha256")
    render.facts([*((field, getattr(shown, field)) for field in fields), ("created", _time(shown))])


@app.command()
def delete(file: FileName, as_json: AsJson = False) -> None:
    """Delete a file that no unfinished job names."""
    with Client() as client:
        file_id = lookup.file_id(client, file)
        client.delete_file(file_id)
    if as_json:
        render.json_text(json.dumps({"file": file_id, "deleted": True}))
    else:
        render.out.print("deleted")


def _line(file: File) -> tuple[object, ...]:
    return (file.task, file.name, file.use, file.kind, file.items, file.bytes, _time(file))


def _time(file: File) -> str:
    return f"{file.created_at:%Y-%m-%d %H:%M:%S}"
