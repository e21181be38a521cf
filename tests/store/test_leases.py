from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from pruning_core.spec.progress import Progress
from pruning_core.spec.report_parts.removal import BlockReport
from store import artifacts, leases, presets
from store.artifacts import ArtifactRow
from store.clock import db_now_plus
from store.errors import LeaseLost
from store.presets import NewPreset
from store.session import Database
from store.tables import Job
from tests.store.helpers import (
    ERROR,
    LAPSED,
    LEASE,
    cancel,
    claim,
    history,
    read,
    rescue,
    submit,
    succeed,
    together,
    try_claim,
    types,
)

FILE = ArtifactRow(
    path="model.safetensors", key="jobs/j/e1/model.safetensors", sha256="ab", bytes=3
)


def step(number: int, phase: str = "pruning", *, block: int | None = None) -> Progress:
    done = BlockReport(block=block or 0, seconds=1, file="b", sha256="c", bytes=1, matrices=())
    return Progress(
        phase=phase,
        step=number,
        total_steps=9,
        percent=number * 10,
        block=None if block is None else done,
    )


def test_a_claim_takes_lease_and_epoch(database: Database):
    job_id = submit(database)
    held = claim(database, owner="gpu-1")
    job = read(database, job_id)
    assert (held.job_id, held.epoch, held.attempt, held.project) == (job_id, 1, 1, "prj")
    assert held.spec == job.spec
    assert (job.status, job.owner, job.version) == ("running", "gpu-1", 2)
    assert job.started_at is not None
    assert job.lease_until is not None
    assert 59 < (job.lease_until - job.started_at).total_seconds() < 61
    assert history(database, job_id)[-1].epoch == 1
    assert try_claim(database) is None


def test_the_longest_waiting_job_is_first(database: Database):
    ids = [submit(database) for _ in range(3)]
    assert [claim(database).job_id for _ in ids] == ids


def test_a_project_with_fewer_running_jobs_goes_first(database: Database):
    mine = [submit(database, project="a") for _ in range(3)]
    theirs = [submit(database, project="b") for _ in range(2)]
    order = [claim(database).job_id for _ in range(5)]
    assert order == [mine[0], theirs[0], mine[1], theirs[1], mine[2]]


def test_a_job_waits_until_it_may_run(database: Database):
    submit(database)
    with database.write() as session:
        session.execute(update(Job).values(run_after=db_now_plus(60)))
    assert try_claim(database) is None


def test_a_project_whose_jobs_must_wait_holds_up_no_other(database: Database):
    submit(database, project="a")
    with database.write() as session:
        session.execute(update(Job).values(run_after=db_now_plus(60)))
    later = submit(database, project="b")
    assert claim(database).job_id == later


def test_no_job_is_claimed_twice(database: Database):
    ids = {submit(database) for _ in range(40)}

    def drain(worker: int) -> list[str]:
        found = []
        while held := try_claim(database, owner=f"w{worker}"):
            found.append(held.job_id)
        return found

    claimed = together([lambda n=n: drain(n) for n in range(6)])
    assert sorted(job for found in claimed for job in found) == sorted(ids)
    assert all(types(database, job_id) == ["queued", "started"] for job_id in ids)


def test_a_row_in_another_workers_hands_is_passed_over(postgres_database: Database):
    first, second = submit(postgres_database), submit(postgres_database)
    with postgres_database.write() as session:
        held = leases.claim(session, owner="w1", lease_seconds=LEASE)
        assert held is not None
        assert held.job_id == first
        assert claim(postgres_database, owner="w2").job_id == second
        assert try_claim(postgres_database, owner="w3") is None


def test_heartbeats_renew_and_carry_the_cancel(database: Database):
    job_id = submit(database)
    held = claim(database, lease_seconds=LAPSED)
    with database.write() as session:
        assert not leases.heartbeat(session, job_id, held.epoch, lease_seconds=LEASE).cancel
    assert rescue(database) == []
    cancel(database, job_id)
    with database.write() as session:
        assert leases.heartbeat(session, job_id, held.epoch, lease_seconds=LEASE).cancel


def test_progress_shows_and_blocks_make_events(database: Database):
    job_id = submit(database)
    held = claim(database)
    for progress in (
        step(0, "calibrating"),
        step(1, "calibrating"),
        step(2),
        step(3, block=0),
        step(4, block=1),
    ):
        with database.write() as session:
            leases.record_progress(session, job_id, held.epoch, progress)
    job = read(database, job_id)
    assert job.phase == "pruning"
    assert job.progress is not None
    assert (job.progress["step"], job.progress["percent"]) == (4, 40)
    assert "block" not in job.progress
    details = [e.detail for e in history(database, job_id) if e.type == "job.progress"]
    assert [(d["phase"], d["block"]) for d in details] == [
        ("calibrating", None),
        ("pruning", None),
        ("pruning", 0),
        ("pruning", 1),
    ]
    assert details[-1] == {
        "phase": "pruning",
        "step": 4,
        "total_steps": 9,
        "unit": "block",
        "batches": 0,
        "percent": 40.0,
        "seconds_remaining": None,
        "block": 1,
    }


def test_progress_without_a_block_is_an_event_where_that_is_asked_for(database: Database):
    job_id = submit(database)
    held = claim(database)
    for number, in_event in ((1, False), (2, True), (3, False)):
        with database.write() as session:
            leases.record_progress(
                session, job_id, held.epoch, step(number), in_event=number == 1 or in_event
            )
    details = [e.detail for e in history(database, job_id) if e.type == "job.progress"]
    assert [detail["step"] for detail in details] == [1, 2]


def test_a_later_claim_knows_how_long_ago_the_first_one_was(database: Database):
    job_id = submit(database)
    first = claim(database)
    assert first.earlier_seconds == 0
    time.sleep(0.05)
    with database.write() as session:
        leases.release(session, job_id, first.epoch, reason="drained")
    assert 0.05 <= claim(database).earlier_seconds < 60


def test_success_writes_everything_at_once(database: Database):
    job_id = submit(database)
    held = claim(database)
    with database.write() as session:
        leases.record_resolved(session, job_id, held.epoch, {"model_commit": "c"})
        reached = leases.finish(
            session, job_id, held.epoch, report={"r": 1}, result={"x": 2}, artifacts=[FILE]
        )
    job = read(database, job_id)
    assert reached == job.status == "succeeded"
    assert (job.report, job.result, job.resolved) == ({"r": 1}, {"x": 2}, {"model_commit": "c"})
    assert (job.owner, job.lease_until) == (None, None)
    assert job.finished_at is not None
    with database.read() as session:
        (row,) = artifacts.rows(session, job_id)
        assert (row.path, row.key, row.epoch) == (FILE.path, FILE.key, 1)


def test_failure_keeps_the_error(database: Database):
    job_id = submit(database)
    held = claim(database)
    with database.write() as session:
        leases.fail(session, job_id, held.epoch, ERROR)
    assert (read(database, job_id).status, read(database, job_id).error) == ("failed", ERROR)
    assert history(database, job_id)[-1].detail == {"error": ERROR}


def test_a_drained_job_goes_back_unharmed(database: Database):
    job_id = submit(database)
    held = claim(database)
    with database.write() as session:
        leases.release(session, job_id, held.epoch, reason="worker drains")
    job = read(database, job_id)
    assert (job.status, job.attempt, job.crash_count) == ("queued", 0, 0)
    again = claim(database)
    assert (again.job_id, again.attempt, again.epoch) == (job_id, 1, 2)
    assert types(database, job_id) == ["queued", "started", "requeued", "started"]


def crash(database: Database, held: leases.Claim, *, backoff: float = 0) -> str:
    with database.write() as session:
        return leases.crashed(
            session, held.job_id, held.epoch, error=ERROR, max_crashes=3, backoff=backoff
        )


def test_the_third_crash_is_the_last(database: Database):
    job_id = submit(database)
    assert [crash(database, claim(database)) for _ in range(3)] == ["queued", "queued", "failed"]
    job = read(database, job_id)
    assert (job.crash_count, job.attempt) == (3, 3)
    assert job.error is not None
    assert (job.error["code"], job.error["cause"]) == ("POISON", "NUMERIC_FAILURE")
    assert "NaN in block 3" in job.error["detail"]


def test_a_crashed_job_waits_out_its_backoff(database: Database):
    submit(database)
    crash(database, claim(database), backoff=60)
    assert try_claim(database) is None


def test_a_silent_workers_job_keeps_its_place(database: Database):
    first = submit(database)
    claim(database, lease_seconds=LAPSED)
    submit(database)
    assert rescue(database) == [first]
    again = claim(database)
    assert (again.job_id, again.epoch, again.attempt) == (first, 2, 2)
    assert read(database, first).crash_count == 1
    assert history(database, first)[2].detail["reason"] == "WORKER_LOST"


def test_later_rescues_wait_longer():
    waits = [leases.rescue_backoff(n) for n in range(6)]
    assert waits == [0, 10, 20, 40, 60, 60]


def test_rescue_ends_the_poisonous_and_the_cancelled(database: Database):
    poisonous, unwanted = submit(database), submit(database)
    claim(database, lease_seconds=LAPSED)
    claim(database, lease_seconds=LAPSED)
    cancel(database, unwanted)
    assert set(rescue(database, max_crashes=1)) == {poisonous, unwanted}
    assert read(database, poisonous).status == "failed"
    assert read(database, unwanted).status == "cancelled"


def test_many_reconcilers_rescue_each_job_once(database: Database):
    ids = [submit(database) for _ in range(20)]
    for _ in ids:
        claim(database, lease_seconds=LAPSED)
    rescued = together([lambda: rescue(database)] * 5)
    assert sorted(job for found in rescued for job in found) == sorted(ids)
    assert all(read(database, job_id).crash_count == 1 for job_id in ids)


def test_rescue_passes_over_a_row_that_is_being_finished(postgres_database: Database):
    submit(postgres_database)
    held = claim(postgres_database, lease_seconds=LAPSED)
    with postgres_database.write() as session:
        leases.fail(session, held.job_id, held.epoch, ERROR)
        assert rescue(postgres_database) == []
    assert read(postgres_database, held.job_id).status == "failed"


Write = Callable[[Session, str, int], Any]
WRITES: dict[str, Write] = {
    "heartbeat": lambda s, j, e: leases.heartbeat(s, j, e, lease_seconds=LEASE),
    "progress": lambda s, j, e: leases.record_progress(s, j, e, step(5, block=4)),
    "resolved": lambda s, j, e: leases.record_resolved(s, j, e, {"stale": True}),
    "succeed": lambda s, j, e: leases.finish(
        s, j, e, report={}, result={}, artifacts=[FILE], preset=NewPreset("stale", {})
    ),
    "fail": lambda s, j, e: leases.fail(s, j, e, ERROR),
    "cancelled": lambda s, j, e: leases.cancelled(s, j, e),
    "release": lambda s, j, e: leases.release(s, j, e, reason="drain"),
    "crashed": lambda s, j, e: leases.crashed(s, j, e, error=ERROR, max_crashes=3, backoff=0),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_zombie_writes_nothing(database: Database, write: Write):
    """A worker stopped past its lease and continued: its epoch is old, also after the job has ended."""
    job_id = submit(database)
    old = claim(database, lease_seconds=LAPSED)
    rescue(database)
    refused(database, write, job_id, old.epoch)
    new = claim(database)
    refused(database, write, job_id, old.epoch)
    succeed(database, new)
    refused(database, write, job_id, old.epoch)
    refused(database, write, job_id, new.epoch)


def refused(database: Database, write: Write, job_id: str, epoch: int) -> None:
    before = snapshot(database, job_id)
    with pytest.raises(LeaseLost), database.write() as session:
        write(session, job_id, epoch)
    assert snapshot(database, job_id) == before


def snapshot(database: Database, job_id: str) -> tuple[Any, ...]:
    job = read(database, job_id)
    columns = {column.key: getattr(job, column.key) for column in Job.__table__.columns}
    with database.read() as session:
        names = list(presets.of_project(session, job.project))
    return columns, types(database, job_id), names


ENDINGS = [name for name in WRITES if name not in ("heartbeat", "progress", "resolved")]


@pytest.mark.parametrize("name", ENDINGS)
def test_once_cancelling_a_job_ends_as_cancelled(database: Database, name: str):
    job_id = submit(database)
    held = claim(database)
    cancel(database, job_id)
    with database.write() as session:
        WRITES[name](session, job_id, held.epoch)
    assert read(database, job_id).status == "cancelled"
    with database.read() as session:
        assert artifacts.rows(session, job_id) == []


def test_bells_back_off(database: Database):
    first, second = submit(database), submit(database)
    assert due(database, limit=1) == [first]
    assert due(database) == [second]
    assert due(database) == []
    for publishes, pause in ((1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60)):
        rung(database, publishes, ago=pause - 1)
        assert due(database) == []
        rung(database, publishes, ago=pause + 1)
        assert due(database) == [first, second]


def rung(database: Database, publishes: int, *, ago: float) -> None:
    with database.write() as session:
        session.execute(update(Job).values(publishes=publishes, published_at=db_now_plus(-ago)))


def due(database: Database, *, limit: int = 10) -> list[str]:
    with database.write() as session:
        return leases.to_ring(session, limit=limit)


def test_a_rescued_job_rings_at_once(database: Database):
    job_id = submit(database)
    due(database)
    claim(database, lease_seconds=LAPSED)
    assert due(database) == []
    rescue(database)
    assert due(database) == [job_id]


def test_a_result_that_misses_a_gate_is_kept_with_its_error(database: Database) -> None:
    job_id = submit(database)
    held = claim(database)
    error = {"code": "QUALITY_GATE_FAILED", "detail": "x"}
    with database.write() as session:
        reached = leases.finish(
            session,
            job_id,
            held.epoch,
            report={"r": 1},
            result={"x": 2},
            artifacts=[FILE],
            error=error,
        )
    job = read(database, job_id)
    assert (reached, job.status, job.error, job.report) == ("failed", "failed", error, {"r": 1})
    with database.read() as session:
        assert [row.path for row in artifacts.rows(session, job_id)] == [FILE.path]
