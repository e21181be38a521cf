"""One database, one data folder, and as many real workers as a test wants to start, stop and kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import select

from pruning_core.spec.base import digest
from pruning_core.spec.prune import PruneSpec
from store import artifacts, events, jobs
from store.backends import artifacts_of
from store.session import Database
from store.settings import Settings
from store.tables import Event, Job
from tests.worker.samples import SPEC

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = "prj_test"
LEASE = {"lease_seconds": 3.0, "heartbeat_seconds": 0.5}
QUICK = {"poll_seconds": 0.3, "reconcile_seconds": 0.3, "term_grace_seconds": 1.0}


def until(true: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Wait for something to become true and return it."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {true}"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ProcessLookupError):
            if stat.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(stat.parent.name))
    return found


class Rig:
    """Starts workers as processes; what a test leaves running is killed with it."""

    def __init__(self, database_url: str, folder: Path, runner: Sequence[str]) -> None:
        self.folder = folder
        self.database = Database(database_url)
        self.settings = Settings(
            data_dir=folder / "data", database_url=database_url, **LEASE, **QUICK
        )
        self.journal = folder / "journal.txt"
        self._runner = runner
        self._processes: list[subprocess.Popen[bytes]] = []

    def configure(self, **changes: Any) -> None:
        """Change settings of the workers that are started from now on."""
        self.settings = self.settings.model_copy(update=changes)

    def child(self, **script: Any) -> list[str]:
        """Return the command of a stand-in child."""
        values = {"blocks": 4, "seconds": 0.05, "end": "", "journal": str(self.journal)} | script
        return [sys.executable, "-m", "tests.worker.stand_in", json.dumps(values)]

    def worker(self, command: Sequence[str] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker; `command` replaces the real pruner."""
        return self._start("tests.worker.worker_main", json.dumps(command or self._runner))

    def reconciler(self) -> subprocess.Popen[bytes]:
        """Start the reconciler as a process of its own."""
        return self._start("worker.reconcile")

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        values = self.settings.model_dump(mode="json", exclude_none=True)
        values["model_roots"] = os.pathsep.join(values["model_roots"])
        environment = [f"SECATEUR_{name.upper()}={value}" for name, value in values.items()]
        log = self.folder / f"log-{len(self._processes)}.txt"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                ["env", *environment, sys.executable, "-m", module, *arguments],
                cwd=REPOSITORY,
                stderr=stderr,
                stdout=stderr,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def log(self) -> str:
        """Return everything that was logged so far."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("log-*.txt")))

    def submit(self, spec: dict[str, Any] = SPEC) -> str:
        """Queue a job."""
        prune = PruneSpec.model_validate(spec["prune"])
        with self.database.write() as session:
            created = jobs.create(
                session,
                project=PROJECT,
                created_by="key_test",
                spec=spec,
                spec_digest=digest(prune),
                name=None,
                labels={},
                idempotency=None,
            )
            return created.job.id

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job."""
        with self.database.write() as session:
            jobs.cancel(session, project=PROJECT, job_id=job_id, actor="key_test")

    def job(self, job_id: str) -> Job:
        """Read a job."""
        with self.database.read() as session:
            return jobs.get(session, project=PROJECT, job_id=job_id)

    def events(self, job_id: str) -> list[Event]:
        """Read a job's history."""
        with self.database.read() as session:
            return events.after(session, job_id, limit=10_000)

    def types(self, job_id: str) -> list[str]:
        """Return a job's events but for progress."""
        return [event.type for event in self.events(job_id) if event.type != "job.progress"]

    def status(self, job_id: str) -> str:
        """Return a job's status."""
        return self.job(job_id).status

    def wait(self, job_id: str, status: str, *, seconds: float = 30) -> Job:
        """Wait until a job has reached a status."""
        until(lambda: self.status(job_id) == status, seconds=seconds)
        return self.job(job_id)

    def wait_block(self, job_id: str, block: int, *, seconds: float = 60) -> None:
        """Wait until a block of a job has been pruned."""
        until(
            lambda: any(
                (event.detail.get("block") or -1) >= block for event in self.events(job_id)
            ),
            seconds=seconds,
        )

    def told(self, job_id: str) -> list[int]:
        """Return the blocks that a job's events name, in order, whichever attempt pruned them."""
        found = [event.detail.get("block") for event in self.events(job_id)]
        return [block for block in found if block is not None]

    def begun(self) -> list[tuple[int, int]]:
        """Return (epoch, block) of every block that a stand-in began, in order."""
        if not self.journal.exists():
            return []
        lines = self.journal.read_text().splitlines()
        return [(int(line.split()[0]), int(line.split()[1])) for line in lines]

    def child_pid(self, worker: subprocess.Popen[bytes]) -> int:
        """Wait for a worker's child and return its process id."""
        return int(until(lambda: children(worker.pid))[0])

    def assert_one_result(self, job_id: str, status: str = "succeeded") -> None:
        """Check that the job ended so once, with one whole set of files and nothing beside it."""
        job = self.job(job_id)
        assert (job.status, job.error is None) == (status, status == "succeeded")
        assert self.types(job_id).count(f"job.{status}") == 1
        with self.database.read() as session:
            rows = artifacts.rows(session, job_id)
        assert {row.epoch for row in rows} == {job.epoch}
        assert job.report is not None
        assert {row.path: row.sha256 for row in rows} == {
            entry["path"]: entry["sha256"] for entry in job.report["files"]
        }
        page = {self.page_key(job)}
        until(lambda: self.stored(job_id) - page == {row.key for row in rows})
        until(lambda: not (self.settings.work_dir / job_id).exists())

    def page_key(self, job: Job) -> str:
        """Return where the report's page is, which no row lists."""
        return artifacts.report_page_key(artifacts.attempt_prefix(job.id, job.epoch))

    def stored(self, job_id: str) -> set[str]:
        """Return the keys of every file of a job in the artifact store."""
        return set(artifacts_of(self.settings).list(f"jobs/{job_id}"))

    def assert_nothing_left(self, job_id: str) -> None:
        """Check that a job without result keeps no file."""
        until(lambda: not (self.settings.work_dir / job_id).exists())
        until(lambda: not self.stored(job_id))
        with self.database.read() as session:
            assert artifacts.rows(session, job_id) == []

    def running(self) -> list[Job]:
        """Return the jobs that a worker holds."""
        with self.database.read() as session:
            return list(session.scalars(select(Job).where(Job.status == "running")))

    def close(self) -> None:
        """Kill every worker, and with it its child."""
        for process in self._processes:
            family = [process.pid, *children(process.pid)]
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        self.database.dispose()


@contextmanager
def rig(database_url: str, folder: Path, runner: Sequence[str]) -> Iterator[Rig]:
    """A rig that is cleared away afterwards; `runner` is the command of the real pruner."""
    made = Rig(database_url, folder, runner)
    try:
        yield made
    finally:
        made.close()
