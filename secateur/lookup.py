"""From what people type to an id: the id itself, a beginning of it that fits one alone, or a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from secateur.client import Client
from secateur.errors import Ambiguous, NotFound
from secateur.models import File, Job

T = TypeVar("T", Job, File)
MOST = 5
"""Candidates that an error lists."""
_LENGTH = 26
_ULID = re.compile(rf"[0-9A-HJKMNP-TV-Z]{{1,{_LENGTH}}}")


def job_id(client: Client, text: str) -> str:
    """Return the id of the job that is meant.

    Raises:
        NotFound: none fits.
        Ambiguous: several do.
    """
    return _resolve(text, "job", client.jobs, _job_line)


def file_id(client: Client, text: str) -> str:
    """Return the id of the uploaded file that is meant; `file:` may stand before it.

    Raises:
        NotFound: none fits.
        Ambiguous: several do.
    """
    return _resolve(text.removeprefix("file:"), "file", client.files, _file_line)


def _resolve(
    text: str, kind: str, listed: Callable[..., Iterable[T]], line: Callable[[T], str]
) -> str:
    begins = _beginning(text, kind)
    if begins is not None and len(begins) == len(kind) + 1 + _LENGTH:
        return begins
    candidates: dict[str, T] = {}
    for filters in ({"name": text} if text.isprintable() else None, {"begins": begins}):
        if filters and any(filters.values()):
            candidates |= {
                candidate.id: candidate for candidate in listed(**filters, limit=MOST + 1)
            }
    return _only(text, kind, candidates, line)


def _beginning(text: str, kind: str) -> str | None:
    """Return the beginning of an id in full, whose `job_` may be left out; None where no id begins so."""
    rest = text.strip().upper().removeprefix(f"{kind}_".upper())
    return f"{kind}_{rest}" if _ULID.fullmatch(rest) else None


def _only(text: str, kind: str, candidates: Mapping[str, T], line: Callable[[T], str]) -> str:
    if len(candidates) == 1:
        return next(iter(candidates))
    if not candidates:
        listing = "secateur list" if kind == "job" else "secateur files list"
        detail = f"no {kind} has the id or the name {text!r}, or an id that begins so"
        raise NotFound(
            404,
            {"code": "NOT_FOUND", "detail": detail, "suggestions": [f"`{listing}` lists them"]},
        )
    several = (
        f"{len(candidates)} {kind}s" if len(candidates) <= MOST else f"more than {MOST} {kind}s"
    )
    raise Ambiguous(
        f"{text!r} fits {several}: give more of the id",
        code="AMBIGUOUS",
        suggestions=tuple(line(candidate) for candidate in list(candidates.values())[:MOST]),
    )


def _job_line(job: Job) -> str:
    named = f"{job.name}, " if job.name else ""
    return f"{job.id}: {named}{job.status}, {job.created_at:%Y-%m-%d %H:%M}"


def _file_line(file: File) -> str:
    return f"{file.id}: {file.name}, {file.use}, {file.created_at:%Y-%m-%d %H:%M}"
