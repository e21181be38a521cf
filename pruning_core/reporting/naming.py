"""What a reader calls things: the model by its name, an uploaded file by the name that its sender gave it."""

from __future__ import annotations

from urllib.parse import unquote

from pruning_core.spec.calibration import FILE_PREFIX
from pruning_core.spec.report import Report

_HUB = "hf://"


def model(ref: str) -> str:
    """Return `org/name` of a hub's model, the last part of a local one's path."""
    if ref.startswith(_HUB):
        return ref.removeprefix(_HUB)
    plain = unquote(ref) if ref.startswith("file://") else ref
    return plain.rstrip("/").rpartition("/")[2] or "unnamed"


def file_name(report: Report, task: str) -> str:
    """Return a task's name, of an uploaded file its sender's."""
    return _files(report).get(task, task)


def task(report: Report, name: str) -> str:
    """Return a task's name, of an uploaded file its sender's and the id."""
    known = _files(report)
    return f"{known[name]} ({name})" if name in known else name


def metric(report: Report, name: str) -> str:
    """Return the name of a gate's figure, `TASK.figure`."""
    of, _, figure = name.rpartition(".")
    return f"{file_name(report, of)}.{figure}" if of.startswith(FILE_PREFIX) else name


def _files(report: Report) -> dict[str, str]:
    return {data.task: data.file for data in report.data if data.file}
