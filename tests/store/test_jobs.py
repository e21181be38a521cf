from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select, update

from store import jobs, leases, paging
from store.clock import db_now_plus
from store.errors import IdempotencyConflict, InvalidCursor, JobNotFound, StateConflict
from store.jobs import Idempotency
from store.session import Database
from store.tables import IdempotencyRecord, Job
from tests.store.helpers import (
    SPEC,
    cancel,
    claim,
    history,
    read,
    submit,
    succeed,
    together,
    try_claim,
    types,
)

KEY = Idempotency("key-1", "fingerprint-1")


def listed(database: Database, **filters) -> list[str]:
    with database.read() as session:
        return [job.id for job in jobs.page(session, project="prj", **filters).items]


def test_a_new_job_is_queued_with_its_first_event(database: Database):
    job = read(database, submit(database, name="n", labels={"team": "edge"}))
    assert (job.status, job.attempt, job.epoch, job.version) == ("queued", 0, 0, 1)
    assert job.created_at == job.queued_at == job.run_after
    assert (job.name, job.labels) == ("n", {"team": "edge"})
    (event,) = history(database, job.id)
    assert (event.type, event.from_status, event.to_status) == ("job.queued", None, "queued")
    assert event.id == f"evt_{event.seq:012d}"


def test_another_projects_job_is_not_found(database: Database):
    job_id = submit(database)
    with pytest.raises(JobNotFound):
        read(database, job_id, project="other")
    with pytest.raises(JobNotFound), database.write() as session:
        jobs.cancel(session, project="other", job_id=job_id, actor="key_2")


def create(database: Database, key: Idempotency, *, project: str = "prj") -> jobs.Created:
    values = {"created_by": "key_1", "spec": SPEC, "spec_digest": "d"}
    with database.write() as session:
        return jobs.create(session, project=project, idempotency=key, **values)


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalars(select(func.count()).select_from(Job)).one()


def test_the_same_key_replays(database: Database):
    first, second = create(database, KEY), create(database, KEY)
    assert (first.replayed, second.replayed) == (False, True)
    assert first.job.id == second.job.id
    assert count(database) == 1


def test_the_same_key_for_another_request_is_refused(database: Database):
    create(database, KEY)
    with pytest.raises(IdempotencyConflict):
        create(database, Idempotency(KEY.key, "other"))
    assert count(database) == 1


def test_projects_have_their_own_keys(database: Database):
    mine, theirs = create(database, KEY), create(database, KEY, project="other")
    assert mine.job.id != theirs.job.id


def test_an_expired_key_makes_a_new_job(database: Database):
    first = create(database, KEY)
    with database.write() as session:
        session.execute(update(IdempotencyRecord).values(expires_at=db_now_plus(-1)))
    second = create(database, Idempotency(KEY.key, "other"))
    assert not second.replayed
    assert second.job.id != first.job.id
    assert create(database, Idempotency(KEY.key, "other")).job.id == second.job.id


def test_one_key_at_the_same_moment_makes_one_job(database: Database):
    made = together([lambda: create(database, KEY)] * 8)
    assert len({created.job.id for created in made}) == 1
    assert [created.replayed for created in made].count(False) == 1
    assert count(database) == 1


def test_a_key_whose_transaction_failed_is_free(database: Database):
    with database.read() as session:  # which is rolled back
        values = {"created_by": "k", "spec": SPEC, "spec_digest": "d"}
        jobs.create(session, project="prj", idempotency=KEY, **values)
    assert not create(database, KEY).replayed


def test_pages_hold_every_job_once_though_more_arrive(database: Database):
    ids = [submit(database) for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        with database.read() as session:
            page = jobs.page(session, project="prj", limit=3, cursor=cursor)
        seen += [job.id for job in page.items]
        submit(database)
        if (cursor := page.next_cursor) is None:
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_jobs_of_the_same_instant_are_paged_by_id(database: Database, order):
    ids = sorted(submit(database) for _ in range(5))
    with database.write() as session:
        session.execute(update(Job).values(created_at=db_now_plus(0)))
    seen: list[str] = []
    cursor = None
    while True:
        with database.read() as session:
            page = jobs.page(session, project="prj", limit=2, cursor=cursor, order=order)
        seen += [job.id for job in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == (ids if order == "asc" else ids[::-1])


def test_a_full_last_page_has_no_cursor(database: Database):
    submit(database)
    with database.read() as session:
        assert jobs.page(session, project="prj", limit=1).next_cursor is None


def test_filters(database: Database):
    dense = {"model": {"ref": "file:///x"}, "prune": {"method": {"name": "magnitude"}}}
    plain = submit(database, labels={'a "b"': "c'd"})
    other = submit(database, spec=dense, labels={"team": "edge", "x": "y"})
    assert listed(database) == [other, plain]
    assert listed(database, method="wanda") == [plain]
    assert listed(database, model="file:///x") == [other]
    assert listed(database, labels={'a "b"': "c'd"}) == [plain]
    assert listed(database, labels={"team": "edge", "x": "y"}) == [other]
    assert listed(database, labels={"team": "edge", "x": "z"}) == []
    assert listed(database, created_after=read(database, plain).created_at) == [other]
    assert listed(database, status="succeeded") == []


def test_filters_by_name_and_by_the_beginning_of_the_id(database: Database):
    one, two = (submit(database, name=name) for name in ("one", "one more"))
    assert listed(database, name="one") == [one]
    assert listed(database, name="on") == []
    assert listed(database, begins=one) == [one]
    assert one in listed(database, begins=one[:-1])
    assert listed(database, begins="job_") == [two, one]
    assert listed(database, begins="job_Z") == []
    assert listed(database, begins="job_0", name="one more") == [two]


def test_filtering_by_status_follows_what_clients_see(database: Database):
    first, second = submit(database), submit(database)
    claim(database)
    claim(database)
    cancel(database, first)
    assert listed(database, status="cancelling") == [first]
    assert listed(database, status="running") == [second]


@pytest.mark.parametrize(
    "cursor", ["", "%", "AAAA", "bnVsbA", "WzEsMiwzXQ", "WyIyMDI2LTAxLTAxIiwgImEiLCAiYiJd", "ü"]
)
def test_a_foreign_cursor_is_refused(database: Database, cursor: str):
    with database.read() as session, pytest.raises(InvalidCursor):
        jobs.page(session, project="prj", cursor=cursor)


@pytest.mark.parametrize(
    "changed",
    [{"status": "failed"}, {"order": "asc"}, {"project": "other"}, {"labels": {"a": "b"}}],
)
def test_a_cursor_with_other_filters_is_refused(database: Database, changed):
    submit(database)
    submit(database)
    with database.read() as session:
        cursor = jobs.page(session, project="prj", limit=1).next_cursor
        with pytest.raises(InvalidCursor, match="filters"):
            jobs.page(session, **{"project": "prj", "cursor": cursor, **changed})


def test_a_queued_job_is_cancelled_at_once(database: Database):
    job_id = submit(database)
    assert cancel(database, job_id) == "cancelled"
    assert read(database, job_id).finished_at is not None
    assert types(database, job_id) == ["queued", "cancelled"]
    assert try_claim(database) is None


def test_a_running_job_is_asked_to_stop_once(database: Database):
    job_id = submit(database)
    held = claim(database)
    assert [cancel(database, job_id) for _ in range(2)] == ["cancelling", "cancelling"]
    assert types(database, job_id) == ["queued", "started", "cancel_requested"]
    with database.write() as session:
        assert leases.heartbeat(session, job_id, held.epoch, lease_seconds=60).cancel
        leases.cancelled(session, job_id, held.epoch)
    assert read(database, job_id).status == "cancelled"
    with pytest.raises(StateConflict, match="already been cancelled"):
        cancel(database, job_id)


def test_a_finished_job_cannot_be_cancelled(database: Database):
    job_id = submit(database)
    succeed(database, claim(database))
    with pytest.raises(StateConflict):
        cancel(database, job_id)


def test_cancel_and_finish_at_the_same_moment_agree(database: Database):
    """Whichever commits first wins: an accepted cancel never ends as success, a success refuses the cancel."""
    outcomes = set()
    for _ in range(12):
        job_id = submit(database)
        held = claim(database)
        accepted, reached = together(
            [lambda job=job_id: cancels(database, job), lambda held=held: succeed(database, held)]
        )
        status = read(database, job_id).status
        assert (accepted, reached, status) in {
            (True, "cancelled", "cancelled"),
            (False, "succeeded", "succeeded"),
        }
        assert sum(t in ("succeeded", "cancelled") for t in types(database, job_id)) == 1
        outcomes.add(status)
    assert outcomes


def cancels(database: Database, job_id: str) -> bool:
    try:
        cancel(database, job_id)
    except StateConflict:
        return False
    return True


def test_queue_positions(database: Database):
    ids = [submit(database) for _ in range(3)]
    with database.read() as session:
        places = [
            jobs.queue_position(session, jobs.get(session, project="prj", job_id=i)) for i in ids
        ]
    assert places == [1, 2, 3]
    claim(database)
    with database.read() as session:
        first, second = (jobs.get(session, project="prj", job_id=i) for i in ids[:2])
        assert jobs.queue_position(session, first) is None
        assert jobs.queue_position(session, second) == 1


@pytest.mark.parametrize("job_id", ["job_\0", "job_\ud800", "x"])
def test_a_crafted_cursor_never_reaches_the_database(job_id: str):
    crafted = paging.encode(paging.Position(datetime.now(UTC), job_id), {})
    with pytest.raises(InvalidCursor, match="not a cursor"):
        paging.decode(crafted, {})
