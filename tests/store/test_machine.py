"""Any sequence of what front end, workers and reconcilers do, against a model in plain Python."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, update

from pruning_core.spec.progress import Progress
from store import jobs, leases
from store.clock import db_now
from store.errors import LeaseLost, StateConflict
from store.session import Database
from store.states import ALLOWED, TERMINAL
from store.tables import Event, Job
from tests.examples import examples
from tests.store.helpers import ERROR, LAPSED, LEASE, history, submit, try_claim
from tests.store.helpers import rescue as rescue_lapsed

MAX_CRASHES = 3
MAX_ALIVE = 2
PROJECTS = ("a", "b")
STEP = Progress(phase="pruning", step=1, total_steps=2, percent=50)


@dataclass
class Expected:
    """One job as it should be."""

    id: str
    project: str
    place: int
    status: str = "queued"
    epoch: int = 0
    attempt: int = 0
    crashes: int = 0
    lapsed: bool = False
    cancelling: bool = False
    history: list[str] = field(default_factory=lambda: ["queued"])

    def become(self, status: str) -> None:
        self.status = "cancelled" if self.cancelling and status != "running" else status
        self.history.append(self.status)

    def crash(self) -> None:
        self.crashes += 1
        self.become("failed" if self.crashes >= MAX_CRASHES else "queued")


class JobMachine(RuleBasedStateMachine):
    """Attempts that are never told of their end stay in the bundle: they are the zombies."""

    database: ClassVar[Database]
    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Expected] = {}
        with self.database.write() as session:
            session.execute(delete(Event))
            session.execute(delete(Job))

    def alive(self) -> list[Expected]:
        return [job for job in self.jobs.values() if job.status not in TERMINAL]

    def holds(self, attempt: tuple[str, int]) -> Expected | None:
        job = self.jobs[attempt[0]]
        return job if (job.status, job.epoch) == ("running", attempt[1]) else None

    @precondition(lambda self: len(self.alive()) < MAX_ALIVE)
    @rule(project=st.sampled_from(PROJECTS))
    def submit(self, project: str) -> None:
        job_id = submit(self.database, project=project)
        self.jobs[job_id] = Expected(job_id, project, place=len(self.jobs))

    @rule(target=attempts, silent=st.booleans())
    def claim(self, silent: bool) -> object:
        held = try_claim(self.database, lease_seconds=LAPSED if silent else LEASE)
        busy = {p: sum(j.status == "running" for j in self.of(p)) for p in PROJECTS}
        queued = [j for j in self.alive() if j.status == "queued"]
        if not queued:
            assert held is None
            return multiple()
        best = min(queued, key=lambda j: (busy[j.project], j.place))
        best.become("running")
        best.epoch, best.attempt, best.lapsed = best.epoch + 1, best.attempt + 1, silent
        assert held is not None
        assert (held.job_id, held.epoch, held.attempt) == (best.id, best.epoch, best.attempt)
        return held.job_id, held.epoch

    def of(self, project: str) -> list[Expected]:
        return [job for job in self.jobs.values() if job.project == project]

    @rule(attempt=attempts)
    def beat(self, attempt: tuple[str, int]) -> None:
        job = self.holds(attempt)
        signals = self.write(attempt, leases.heartbeat, lease_seconds=LEASE)
        if job is not None:
            job.lapsed = False
            assert signals == leases.Signals(cancel=job.cancelling)

    @rule(attempt=attempts)
    def progress(self, attempt: tuple[str, int]) -> None:
        self.write(attempt, leases.record_progress, progress=STEP)

    @rule(attempt=attempts)
    def succeed(self, attempt: tuple[str, int]) -> None:
        self.end(attempt, "succeeded", leases.finish, report={}, result={}, artifacts=[])

    @rule(attempt=attempts)
    def fail(self, attempt: tuple[str, int]) -> None:
        self.end(attempt, "failed", leases.fail, error=ERROR)

    @rule(attempt=attempts)
    def drain(self, attempt: tuple[str, int]) -> None:
        job = self.holds(attempt)
        self.end(attempt, "queued", leases.release, reason="drain")
        if job is not None and job.status == "queued":
            job.attempt -= 1

    @rule(attempt=attempts)
    def crash(self, attempt: tuple[str, int]) -> None:
        job = self.holds(attempt)
        self.write(attempt, leases.crashed, error=ERROR, max_crashes=MAX_CRASHES, backoff=0)
        if job is not None:
            job.crash()

    @rule(attempt=attempts)
    def stop(self, attempt: tuple[str, int]) -> None:
        job = self.holds(attempt)
        if job is None or job.cancelling:
            self.end(attempt, "cancelled", leases.cancelled)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())[-MAX_ALIVE:]))
        with self.database.write() as session:
            try:
                jobs.cancel(session, project=job.project, job_id=job.id, actor="key_1")
            except StateConflict:
                assert job.status in TERMINAL
                return
        assert job.status not in TERMINAL
        waited = job.status == "queued"
        job.cancelling = True
        if waited:
            job.become("cancelled")

    @rule()
    def rescue(self) -> None:
        lapsed = [j for j in self.alive() if j.status == "running" and j.lapsed]
        found = rescue_lapsed(self.database, max_crashes=MAX_CRASHES)
        assert sorted(found) == sorted(job.id for job in lapsed)
        for job in lapsed:
            job.crash()
        with self.database.write() as session:  # the pause after a second rescue goes by
            session.execute(update(Job).values(run_after=db_now()))

    def end(self, attempt: tuple[str, int], status: str, write, **values) -> None:
        job = self.holds(attempt)
        reached = self.write(attempt, write, **values)
        if job is not None:
            job.become(status)
            assert reached == job.status

    def write(self, attempt: tuple[str, int], write, **values) -> object:
        job_id, epoch = attempt
        try:
            with self.database.write() as session:
                answer = write(session, job_id, epoch, **values)
        except LeaseLost:
            assert self.holds(attempt) is None
            return None
        assert self.holds(attempt) is not None, "a stale epoch wrote"
        return answer

    @invariant()
    def rows_are_as_expected(self) -> None:
        for job in self.jobs.values():
            with self.database.read() as session:
                row = jobs.get(session, project=job.project, job_id=job.id)
            found = (row.status, row.epoch, row.attempt, row.crash_count)
            assert found == (job.status, job.epoch, job.attempt, job.crashes)

    @invariant()
    def histories_are_sound(self) -> None:
        for job in self.jobs.values():
            events = history(self.database, job.id)
            moves = [e for e in events if e.from_status != e.to_status]
            assert [e.to_status for e in moves] == job.history
            assert events[-1].to_status == job.status
            for before, after in itertools.pairwise(events):
                assert after.from_status == before.to_status
            assert all(m.to_status in ALLOWED[str(m.from_status)] for m in moves[1:])
            ends = [e for e in moves if e.to_status in TERMINAL]
            assert len(ends) == (job.status in TERMINAL)


def explore(database: Database, *, scenarios: int) -> None:
    machine = type("Machine", (JobMachine,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(scenarios),
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            phases=(
                Phase.generate,
            ),  # shrinking replays for minutes; the steps are short enough to read
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_sqlite_agrees_with_the_model(sqlite_database_url: str):
    database = Database(sqlite_database_url)
    explore(database, scenarios=20)
    database.dispose()


def test_postgres_agrees_with_the_model(postgres_database: Database):
    explore(postgres_database, scenarios=6)
