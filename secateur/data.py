"""Data that a job names: tasks as they are, uploaded files by id or name, files of this machine by uploading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from secateur import arguments, lookup, render
from secateur.client import Client

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md", ".parquet")
_UPLOADED = "file:"


def local_files(texts: Sequence[str], option: str) -> dict[str, Path]:
    """Return those that are paths of this machine; a task's name has neither a slash nor such an ending.

    Raises:
        Usage: there is no such file.
    """
    paths = {}
    for text in texts:
        path = Path(text.removeprefix("file://")).expanduser()
        if not _is_path(text):
            continue
        if not path.is_file():
            what = "is a folder: upload one file" if path.is_dir() else "no such file"
            raise arguments.bad(option, f"{text}: {what}")
        paths[text] = path.resolve()
    return paths


def _is_path(text: str) -> bool:
    if text.startswith(_UPLOADED) and not text.startswith("file://"):
        return False
    return "/" in text or text.startswith("~") or text.lower().endswith(_SUFFIXES)


def names(
    client: Client,
    calibrating: Sequence[str],
    evaluating: Sequence[str],
    paths: Mapping[str, Path],
    *,
    quiet: bool,
) -> dict[str, str]:
    """Return what a specification calls each of them; uploads the files among them.

    Args:
        client: Of the server that the job goes to.
        calibrating: What `--calibration` names.
        evaluating: What `--evaluate` names; empty where the calibration tasks are evaluated.
        paths: Those that are files of this machine.
        quiet: Say nothing of uploads.
    """
    named = {}
    for text in dict.fromkeys((*calibrating, *evaluating)):
        if text in paths:
            use = _use(paths[text], calibrating, evaluating, paths)
            named[text] = client.upload(paths[text], use=use).task
            if not quiet:
                render.line(f"uploaded {text} as {named[text]}")
        elif text.startswith(_UPLOADED):
            named[text] = _UPLOADED + lookup.file_id(client, text)
        else:
            named[text] = text
    return named


def _use(
    path: Path, calibrating: Sequence[str], evaluating: Sequence[str], paths: Mapping[str, Path]
) -> str:
    """Return what a file is uploaded for: both where it calibrates and is evaluated, if only by default."""
    calibrates = any(paths.get(text) == path for text in calibrating)
    evaluates = any(paths.get(text) == path for text in evaluating) or not evaluating
    if calibrates and evaluates:
        return "both"
    return "calibration" if calibrates else "evaluation"
