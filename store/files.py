"""Uploaded files: a row each, the bytes in the artifact store; they belong to a project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Text, cast, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store import paging
from store.clock import db_now
from store.errors import FileInUse, FileUnknown, StateConflict
from store.paging import Order, Page
from store.tables import IS_QUEUED, IS_RUNNING, File, Job

PREFIX: Final = "file:"
"""Begins what a specification calls an uploaded file."""


@dataclass(frozen=True)
class NewFile:
    """What is known of a file that was found sound; `key` is where its bytes are."""

    id: str
    name: str
    use: str
    format: str
    kind: str
    items: int
    bytes: int
    sha256: str
    key: str
    splits: Mapping[str, Any] | None = None
    """Items and bytes of text of each split: `pruning_core.datasets.uploads.SplitSize` as JSON."""


def key_of(file_id: str) -> str:
    """Return where the artifact store keeps a file."""
    return f"files/{file_id}"


def create(session: Session, new: NewFile, *, project: str, created_by: str) -> File:
    """Store a file, or return the project's own one with the same bytes, use and format.

    Raises:
        StateConflict: That one was deleted meanwhile.
    """
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    row = insert(File).values(
        project=project, created_by=created_by, created_at=db_now(), **vars(new)
    )
    row = row.on_conflict_do_nothing(index_elements=["project", "sha256", "use", "format"])
    made: File | None = session.scalars(row.returning(File)).one_or_none()
    if made is not None:
        return made
    earlier = same(session, project=project, sha256=new.sha256, use=new.use, format=new.format)
    if earlier is None:
        raise StateConflict("the same file was deleted at this very moment: send it again")
    return earlier


def same(session: Session, *, project: str, sha256: str, use: str, format: str) -> File | None:  # noqa: A002 - the column's name
    """Return the project's file of these bytes, use and format."""
    return session.scalar(
        select(File).where(
            File.project == project,
            File.sha256 == sha256,
            File.use == use,
            File.format == format,
        )
    )


def get(session: Session, *, project: str, file_id: str) -> File:
    """Return one file.

    Raises:
        FileUnknown: None of this id, or it is another project's.
    """
    file = session.scalar(select(File).where(File.id == file_id, File.project == project))
    if file is None:
        raise FileUnknown(file_id)
    return file


def page(
    session: Session,
    *,
    project: str,
    use: str | None = None,
    name: str | None = None,
    begins: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
    order: Order = "desc",
) -> Page[File]:
    """Return files by time of creation; `begins` is `file_` and the first characters of a ULID.

    Raises:
        InvalidCursor: Not ours, or made with other filters.
    """
    filters = {"of": "files", "project": project, "use": use, "name": name, "begins": begins}
    chosen = select(File).where(File.project == project)
    if use is not None:
        chosen = chosen.where(File.use == use)
    if name is not None:
        chosen = chosen.where(File.name == name)
    if begins is not None:
        chosen = chosen.where(paging.begins(File.id, begins))
    columns = (File.created_at, File.id)
    return paging.read(session, chosen, columns, filters, limit=limit, cursor=cursor, order=order)


def remove(session: Session, *, project: str, file_id: str) -> str:
    """Delete a file's row and return the key of its bytes, which go once this is committed.

    Raises:
        FileUnknown: None of this id in the project.
        FileInUse: A job that waits or runs names it.
    """
    file = get(session, project=project, file_id=file_id)
    job_id = session.scalar(_unfinished_naming(file).limit(1))
    if job_id is not None:
        raise FileInUse(
            f"job {job_id} still needs file {file_id}: delete it when the job has ended, or cancel the job"
        )
    session.execute(delete(File).where(File.id == file.id))
    return file.key


def of_prune(session: Session, prune: Mapping[str, Any], *, project: str) -> dict[str, File]:
    """Return the project's files that `prune` of a specification names, by these names.

    Those that are not there any more are missing here too.
    """
    ids = {name.removeprefix(PREFIX) for name in named(prune)}
    if not ids:
        return {}
    rows = session.scalars(select(File).where(File.project == project, File.id.in_(ids)))
    return {row.task: row for row in rows}


def named(prune: Mapping[str, Any]) -> set[str]:
    """Return every `file:<id>` among the tasks that calibrate, train and evaluate."""
    calibrating = [task["name"] for task in prune.get("calibration", {}).get("tasks", ())]
    training = (prune.get("recovery") or {}).get("tasks") or ()
    names = (*calibrating, *training, *(prune.get("evaluation", {}).get("tasks") or ()))
    return {name for name in names if name.startswith(PREFIX)}


def facts(file: File) -> dict[str, Any]:
    """Return the fields of a `pruning_core.datasets.uploads.UserFile`, all but where it lies."""
    fields = ("name", "format", "kind", "use", "items", "bytes", "sha256", "splits")
    return {name: getattr(file, name) for name in fields}


def _unfinished_naming(file: File) -> Any:
    """Select the jobs that need a file; the id in quotes stands in a specification as a task's name alone."""
    names_it = cast(Job.spec, Text).contains(f'"{file.task}"', autoescape=True)
    return select(Job.id).where(Job.project == file.project, or_(IS_QUEUED, IS_RUNNING), names_it)
