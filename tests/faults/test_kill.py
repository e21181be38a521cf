"""SIGKILL and SIGSTOP at the worst moments, to real processes, with a stand-in child."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter

import pytest

from store.backends import artifacts_of
from tests.worker.rig import Rig, alive, until

SLOW = {"blocks": 8, "seconds": 0.3}


def begun_again(rig: Rig) -> int:
    """Return how many blocks were begun more than once."""
    counts = Counter(block for _, block in rig.begun())
    assert set(counts) == set(range(8))
    assert max(counts.values()) <= 2
    return sum(count - 1 for count in counts.values())


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_kill_worker_and_child(any_rig: Rig) -> None:
    job_id = any_rig.submit()
    worker = any_rig.worker(any_rig.child(**SLOW))
    any_rig.wait_block(job_id, 2)
    child = any_rig.child_pid(worker)
    worker.kill()
    kill(child)
    any_rig.worker(any_rig.child(**SLOW))
    job = any_rig.wait(job_id, "succeeded")
    assert begun_again(any_rig) <= 1
    assert (job.attempt, job.crash_count, job.epoch) == (2, 1, 2)
    assert any_rig.types(job_id).count("job.requeued") == 1
    any_rig.assert_one_result(job_id)


def test_kill_child(rig: Rig) -> None:
    job_id = rig.submit()
    worker = rig.worker(rig.child(**SLOW))
    rig.wait_block(job_id, 2)
    killed = time.monotonic()
    kill(rig.child_pid(worker))
    until(lambda: rig.job(job_id).epoch == 2, seconds=2)
    assert time.monotonic() - killed < rig.settings.lease_seconds
    rig.wait(job_id, "succeeded")
    assert begun_again(rig) <= 1
    rig.assert_one_result(job_id)


def test_child_dies_with_its_supervisor(rig: Rig) -> None:
    rig.submit()
    worker = rig.worker(rig.child(first="hang"))
    child = rig.child_pid(worker)
    marker = rig.journal.with_suffix(".helper")
    helper = int(until(lambda: marker.exists() and marker.read_text()))
    worker.kill()
    killed = time.monotonic()
    until(lambda: not alive(child) and not alive(helper), seconds=5)
    assert time.monotonic() - killed < 1.5


def test_a_stopped_worker_is_fenced(any_rig: Rig) -> None:
    job_id = any_rig.submit()
    zombie = any_rig.worker(any_rig.child(**SLOW))
    any_rig.wait_block(job_id, 2)
    child = any_rig.child_pid(zombie)
    for pid in (zombie.pid, child):
        os.kill(pid, signal.SIGSTOP)
    successor = any_rig.worker(any_rig.child(**SLOW))
    until(lambda: any_rig.job(job_id).epoch == 2, seconds=10)
    any_rig.wait_block(job_id, 4)
    for pid in (child, zombie.pid):
        os.kill(pid, signal.SIGCONT)
    until(lambda: not alive(child), seconds=3)
    any_rig.wait(job_id, "succeeded")
    any_rig.assert_one_result(job_id)
    assert any_rig.job(job_id).epoch == 2
    late = [e.epoch for e in any_rig.events(job_id) if e.type == "job.progress"]
    assert late == sorted(late)
    assert "attempt.fenced" in any_rig.log() or "Fenced" in any_rig.log()
    assert zombie.poll() is None
    assert successor.poll() is None


def test_a_worker_stopped_before_its_commit_is_fenced(rig: Rig) -> None:
    """Its child was done and its files were stored: still none of it counts, and none of it stays."""
    job_id = rig.submit()
    zombie = rig.worker(rig.child(files=400, **SLOW))
    until(lambda: len(rig.stored(job_id)) > 5)
    os.kill(zombie.pid, signal.SIGSTOP)
    rig.worker(rig.child(files=400, **SLOW))
    rig.wait(job_id, "succeeded")
    os.kill(zombie.pid, signal.SIGCONT)
    until(lambda: '"outcome": "Fenced"' in rig.log() or "attempt.fenced" in rig.log(), seconds=10)
    rig.assert_one_result(job_id)
    assert rig.job(job_id).epoch == 2
    assert begun_again(rig) == 0


def test_kill_between_upload_and_commit(rig: Rig) -> None:
    job_id = rig.submit()
    worker = rig.worker(rig.child(files=400, **SLOW))
    until(lambda: len(rig.stored(job_id)) > 5)
    worker.kill()
    rig.worker(rig.child(files=400, **SLOW))
    rig.wait(job_id, "succeeded")
    rig.assert_one_result(job_id)
    assert begun_again(rig) == 0
    assert rig.job(job_id).epoch == 2


def test_kill_between_commit_and_clean_up(rig: Rig) -> None:
    """The next worker removes what the killed one could not."""
    job_id = rig.submit()
    rig.worker(rig.child(**SLOW))
    rig.wait(job_id, "succeeded")
    until(lambda: not (rig.settings.work_dir / job_id).exists())
    (rig.settings.work_dir / job_id / "e1" / "work").mkdir(parents=True)
    rig.worker(rig.child(**SLOW))
    rig.assert_one_result(job_id)


@pytest.mark.parametrize("copies", [5])
def test_many_reconcilers_rescue_once(any_rig: Rig, copies: int) -> None:
    job_id = any_rig.submit()
    worker = any_rig.worker(any_rig.child(**SLOW))
    any_rig.wait_block(job_id, 1)
    worker.kill()
    for _ in range(copies):
        any_rig.reconciler()
    any_rig.wait(job_id, "queued", seconds=10)
    time.sleep(1.5)
    job = any_rig.job(job_id)
    assert (job.crash_count, any_rig.types(job_id).count("job.requeued")) == (1, 1)


def test_poison_is_given_up_and_the_next_job_runs(rig: Rig) -> None:
    rig.configure(max_crashes=2)
    job_id = rig.submit()
    for crash in (1, 2):
        worker = rig.worker(rig.child(**SLOW))
        until(lambda crash=crash: rig.job(job_id).epoch == crash)
        rig.child_pid(worker)
        worker.kill()
        worker.wait()
    survivor = rig.worker(rig.child(**SLOW))
    job = rig.wait(job_id, "failed", seconds=20)
    assert job.error is not None
    assert (job.error["code"], job.crash_count) == ("POISON", 2)
    rig.wait(rig.submit(), "succeeded")
    rig.assert_nothing_left(job_id)
    assert survivor.poll() is None


def test_stored_files_survive_what_happens_to_work_files(rig: Rig) -> None:
    """Stored files are links to work files: removing the latter must not touch them."""
    job_id = rig.submit()
    rig.worker(rig.child(**SLOW))
    rig.wait(job_id, "succeeded")
    rig.assert_one_result(job_id)
    store = artifacts_of(rig.settings)
    assert b"".join(store.open(f"jobs/{job_id}/e1/config.json")) == b"{}"


def test_two_slots_share_the_queue(rig: Rig) -> None:
    rig.configure(worker_slots=2)
    ids = [rig.submit() for _ in range(4)]
    worker: subprocess.Popen[bytes] = rig.worker(rig.child(blocks=8, seconds=0.1))
    until(lambda: len(rig.running()) == 2)
    for job_id in ids:
        rig.wait(job_id, "succeeded")
        rig.assert_one_result(job_id)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=5) == 0
