"""Filters: what matches nothing among many jobs costs what it costs among few."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, text

from store import jobs
from store.session import Database
from store.tables import FILTERS, Job, JobLabel, new_id

COUNT = 4000
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = ("hf://a/b", "hf://a/c")


def fill(database: Database) -> None:
    """Store jobs of which half failed, with Wanda, and half were cancelled, with FLAP."""
    rows, labels = [], []
    for number in range(COUNT):
        odd = number % 2
        at = BEGAN + timedelta(seconds=number)
        row = {
            "id": new_id("job"),
            "project": "prj",
            "name": f"job {odd}",
            "labels": {"team": f"t{odd}", "kind": "x"},
            "status": ("failed", "cancelled")[odd],
            "spec": {},
            "method": ("wanda", "flap")[odd],
            "model": MODELS[odd],
            "spec_digest": "",
            "created_by": "key",
            "created_at": at,
            "queued_at": at,
            "run_after": at,
        }
        rows.append(row)
        labels += [
            {"job_id": row["id"], "key": key, "value": value, "project": "prj", "created_at": at}
            for key, value in row["labels"].items()
        ]
    with database.write() as session:
        session.execute(insert(Job), rows)
        session.execute(insert(JobLabel), labels)
        session.execute(text("ANALYZE"))


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database)
    return database


def rows_read(connection: Connection, statement: str, parameters: Any) -> int:
    """Return how many rows PostgreSQL looked at and threw away, or SQLite would have to."""
    if connection.dialect.name == "postgresql":
        told = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
        return thrown_away(told.scalar_one()[0]["Plan"])
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    steps = [row[3] for row in plan]
    exact = all(
        ("USING" in step and "=? AND" in step) or "job_id=?" in step or "(id=?)" in step
        for step in steps
    )
    return 0 if exact else COUNT


def thrown_away(plan: dict[str, Any]) -> int:
    inner = sum(thrown_away(one) for one in plan.get("Plans", ()))
    return int(plan.get("Rows Removed by Filter", 0)) * int(plan["Actual Loops"]) + inner


def cost(database: Database, **filters: Any) -> tuple[int, int]:
    """Return how many jobs are found, and how many rows were thrown away on the way."""
    seen: list[tuple[str, Any]] = []

    def keep(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", keep)
    try:
        with database.read() as session:
            found = jobs.page(session, project="prj", **filters).items
    finally:
        event.remove(database.engine, "before_cursor_execute", keep)
    with database.engine.connect() as connection:
        return len(found), rows_read(connection, *seen[-1])


VALUES = {
    "status": ("failed", "cancelled", "running"),
    "method": ("flap", "wanda", "nothing"),
    "model": (*MODELS, "hf://x/y"),
}


@pytest.mark.parametrize("columns", FILTERS, ids="-".join)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_every_combination_is_read_through_an_index(
    filled: Database, columns: tuple[str, ...], order: str
) -> None:
    for turn in range(3):
        chosen = {name: VALUES[name][turn] for name in columns}
        found, wasted = cost(filled, order=order, **chosen)
        assert wasted == 0, chosen
        assert found == (20 if turn < 2 and len(columns) == 1 else 0) or len(columns) == 2


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"team": "t1"}, 20),
        ({"team": "t9"}, 0),
        ({"none": "x"}, 0),
        ({"kind": "x", "team": "t0"}, 20),
    ],
)
def test_labels_are_read_through_an_index(
    filled: Database, labels: dict[str, str], found: int
) -> None:
    for order in ("asc", "desc"):
        assert cost(filled, labels=labels, order=order)[0] == found
    if len(labels) == 1:
        assert cost(filled, labels=labels) == (found, 0)


def test_names_and_times_are_read_through_an_index(filled: Database) -> None:
    assert cost(filled, name="job 9") == (0, 0)
    assert cost(filled, created_after=BEGAN + timedelta(days=9)) == (0, 0)
    assert cost(filled, status="cancelled", created_after=BEGAN + timedelta(days=9)) == (0, 0)


def test_pages_of_a_label_follow_one_another(filled: Database) -> None:
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        with filled.read() as session:
            page = jobs.page(
                session,
                project="prj",
                labels={"team": "t1"},
                limit=7,
                cursor=cursor,
                status="cancelled",
            )
        seen += [job.id for job in page.items]
        cursor = page.next_cursor
    assert len(set(seen)) == 21
    with filled.read() as session:
        whole = jobs.page(session, project="prj", method="flap", limit=21)
    assert [job.id for job in whole.items] == seen
