"""What the tests of the store do again and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

from store import events, jobs, leases
from store.session import Database
from store.tables import Event, Job

T = TypeVar("T")
SPEC = {"model": {"ref": "hf://a/b"}, "prune": {"method": {"name": "wanda"}}}
LEASE = 60
LAPSED = -1
ERROR = {
    "code": "NUMERIC_FAILURE",
    "class": "system",
    "retryable": False,
    "detail": "NaN in block 3",
    "suggestions": [],
}


def submit(database: Database, *, project: str = "prj", **changes: Any) -> str:
    values = {
        "created_by": "key_1",
        "spec": SPEC,
        "spec_digest": "sha256:0",
        "name": None,
        "labels": {},
        "idempotency": None,
        **changes,
    }
    time.sleep(0.002)  # SQLite's clock counts milliseconds, and tests rely on the order
    with database.write() as session:
        return jobs.create(session, project=project, **values).job.id


def claim(database: Database, *, owner: str = "w1", lease_seconds: float = LEASE) -> leases.Claim:
    found = try_claim(database, owner=owner, lease_seconds=lease_seconds)
    assert found is not None
    return found


def try_claim(
    database: Database, *, owner: str = "w1", lease_seconds: float = LEASE
) -> leases.Claim | None:
    with database.write() as session:
        return leases.claim(session, owner=owner, lease_seconds=lease_seconds)


def succeed(database: Database, held: leases.Claim) -> str:
    with database.write() as session:
        return leases.finish(
            session, held.job_id, held.epoch, report={"r": 1}, result={"x": 2}, artifacts=[]
        )


def cancel(database: Database, job_id: str) -> str:
    with database.write() as session:
        return jobs.client_status(jobs.cancel(session, project="prj", job_id=job_id, actor="key_1"))


def rescue(database: Database, *, max_crashes: int = 3) -> list[str]:
    with database.write() as session:
        return leases.rescue(session, max_crashes=max_crashes)


def read(database: Database, job_id: str, *, project: str = "prj") -> Job:
    with database.read() as session:
        return jobs.get(session, project=project, job_id=job_id)


def history(database: Database, job_id: str) -> list[Event]:
    with database.read() as session:
        return events.after(session, job_id, limit=10_000)


def types(database: Database, job_id: str) -> list[str]:
    return [event.type.removeprefix("job.") for event in history(database, job_id)]


def together(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Run all at the same moment, each in a thread of its own; raise what one raises."""
    barrier = Barrier(len(actions))

    def start(action: Callable[[], T]) -> T:
        barrier.wait(timeout=30)
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(start, actions))
