from __future__ import annotations

import ast
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import store
from store.errors import StateConflict
from store.session import Database
from store.states import ALLOWED, STATUSES, TERMINAL, transition
from tests.store.helpers import claim, read, submit, succeed, types


def test_terminal_statuses_are_final():
    assert sorted(TERMINAL) == ["cancelled", "failed", "succeeded"]
    assert set(ALLOWED) == set(STATUSES)


def test_a_move_that_is_not_allowed_writes_nothing(database: Database):
    job_id = submit(database)
    job = read(database, job_id)
    with pytest.raises(StateConflict, match="cannot become"), database.write() as session:
        transition(session, job, "succeeded", actor="x", type="job.succeeded", detail={})
    assert types(database, job_id) == ["queued"]


def test_a_job_that_changed_since_it_was_read_is_not_moved(database: Database):
    job_id = submit(database)
    stale = read(database, job_id)
    succeed(database, claim(database))
    with pytest.raises(StateConflict, match="changed"), database.write() as session:
        transition(session, stale, "cancelled", actor="x", type="job.cancelled", detail={})
    assert read(database, job_id).status == "succeeded"


@pytest.mark.parametrize(
    "broken",
    [
        "UPDATE jobs SET status = 'running'",
        "UPDATE jobs SET owner = 'w', lease_until = created_at",
        "UPDATE jobs SET status = 'lost'",
    ],
)
def test_the_database_itself_refuses_broken_rows(database: Database, broken: str):
    submit(database)
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text(broken))


def test_only_states_assigns_a_status():
    """Every transition needs its event in the same transaction: one place writes both."""
    folder = Path(store.__path__[0])
    sources = {p.name: ast.parse(p.read_text()) for p in folder.glob("*.py")}
    assigning = {
        name for name, tree in sources.items() if any(assigns(node) for node in ast.walk(tree))
    }
    assert assigning == {"states.py"}


def assigns(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "values" and any(k.arg == "status" for k in node.keywords)
    stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    return stored and node.attr == "status"
