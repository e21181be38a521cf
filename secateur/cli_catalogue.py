"""`secateur inspect`, `methods`, `tasks`, `presets`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

from pruning_core.spec.element_methods import COEFFICIENTS
from secateur import arguments, inspected, render
from secateur.client import Client
from secateur.models import Preset, Task

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs")]


def install(app: typer.Typer) -> None:
    for command in (inspect, methods, tasks, presets):
        app.command()(command)


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
    ref = arguments.model_ref(model, "MODEL")
    with Client() as client:
        inspection = client.inspect(ref, multiple_of=multiple_of or ())
    if as_json:
        render.json_text(inspection.model_dump_json())
    else:
        inspected.show(inspection)


def methods(as_json: AsJson = False) -> None:
    """List the pruning methods."""
    with Client() as client:
        listed = client.methods()
    if as_json:
        render.json_list(listed)
        return
    lines = ((m.name, m.default_pattern, " ".join(m.patterns), m.summary) for m in listed)
    render.rows(("method", "default", "patterns", "what it does"), lines)


def tasks(as_json: AsJson = False) -> None:
    """List the tasks that calibrate and evaluate, and whether their data can be had."""
    with Client() as client:
        listed = client.tasks()
    if as_json:
        render.json_list(listed)
        return
    columns = ("task", "kind", "data", "calibration bytes", "evaluation bytes", "what it is")
    render.rows(columns, map(_task_line, listed))


def presets(as_json: AsJson = False) -> None:
    """List the presets of CRePE's coefficients."""
    with Client() as client:
        listed = client.presets()
    if as_json:
        render.json_list(listed)
        return
    columns = ("preset", *COEFFICIENTS, "job", "where it comes from")
    render.rows(columns, map(_preset_line, listed), ids=("job",))


def _task_line(task: Task) -> tuple[object, ...]:
    sizes = (task.calibration_bytes, task.evaluation_bytes)
    shown = ("?" if size is None else size for size in sizes)
    data = task.origin if task.reachable else f"{task.origin}, out of reach"
    return (task.name, task.kind, data, *shown, task.description)


def _preset_line(preset: Preset) -> tuple[object, ...]:
    values = (preset.coefficients.get(name) for name in COEFFICIENTS)
    shown = (f"{value:.4g}" if isinstance(value, float) else value for value in values)
    return (preset.name, *shown, preset.job_id or "-", preset.found)
