"""`secateur serve`: options of the service on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur import serve as service
from secateur.config import DEFAULT_HOST, DEFAULT_PORT, data_dir


def serve(
    port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="SECATEUR_PORT", help="0 takes a free one")
    ] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option(envvar="SECATEUR_HOST", help="Address to listen at; 0.0.0.0: all")
    ] = DEFAULT_HOST,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="Database, results, work, credentials. Unset: SECATEUR_DATA_DIR, else "
            "~/.local/share/secateur",
        ),
    ] = None,
    model_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder whose models may be pruned; repeatable. Unset: SECATEUR_MODEL_ROOTS"
        ),
    ] = None,
    tasks_dir: Annotated[
        Path | None,
        typer.Option(
            help="A folder with one folder per calibration task. Unset: SECATEUR_TASKS_DIR"
        ),
    ] = None,
) -> None:
    """Run the whole service on this machine: no database server, no broker."""
    options = service.Options(
        data_dir=(data or data_dir()).expanduser().absolute(),
        port=port,
        host=host,
        model_roots=tuple(path.expanduser().absolute() for path in model_root or ()),
        tasks_dir=tasks_dir.expanduser().absolute() if tasks_dir else None,
    )
    raise typer.Exit(service.run(options))
