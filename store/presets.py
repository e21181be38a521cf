"""Coefficients that searches found, under names that belong to a project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store.clock import db_now
from store.tables import Job, Preset


@dataclass(frozen=True)
class NewPreset:
    """What a job found, and the name that its specification gives it."""

    name: str
    coefficients: dict[str, Any]


def of_project(session: Session, project: str) -> Mapping[str, Preset]:
    """Return a project's presets by name, in the order of names."""
    rows = session.scalars(
        select(Preset).where(Preset.project == project).order_by(Preset.name),
        execution_options={"populate_existing": True},
    )
    return {row.name: row for row in rows}


def add(session: Session, preset: NewPreset, *, job: Job) -> bool:
    """Store what a job found for its project; False, and nothing stored, where the name is taken.

    A second transaction with the same name waits here until the first has ended.
    """
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    row = insert(Preset).values(
        project=job.project,
        name=preset.name,
        coefficients=preset.coefficients,
        job_id=job.id,
        created_at=db_now(),
        created_by=job.created_by,
    )
    row = row.on_conflict_do_nothing(index_elements=["project", "name"])
    return session.scalar(row.returning(Preset.name)) is not None
