"""Cancel and drain: the child is really gone, and nothing counts against the job."""

from __future__ import annotations

import os
import signal
import time

from tests.worker.rig import Rig, alive, until


def test_cancel_stops_a_running_child(any_rig: Rig) -> None:
    job_id = any_rig.submit()
    worker = any_rig.worker(any_rig.child(blocks=1000, seconds=0.1))
    any_rig.wait_block(job_id, 1)
    child = any_rig.child_pid(worker)
    asked = time.monotonic()
    any_rig.cancel(job_id)
    any_rig.cancel(job_id)
    any_rig.wait(job_id, "cancelled", seconds=3)
    assert not alive(child)
    assert time.monotonic() - asked < 2.5
    assert any_rig.types(job_id)[-2:] == ["job.cancel_requested", "job.cancelled"]
    any_rig.assert_nothing_left(job_id)


def test_cancel_kills_a_deaf_child_and_its_helpers(rig: Rig) -> None:
    job_id = rig.submit()
    worker = rig.worker(rig.child(first="hang"))
    child = rig.child_pid(worker)
    marker = rig.journal.with_suffix(".helper")
    helper = int(until(lambda: marker.exists() and marker.read_text()))
    rig.cancel(job_id)
    rig.wait(job_id, "cancelled", seconds=5)
    assert not alive(child)
    until(lambda: not alive(helper), seconds=1)
    rig.assert_nothing_left(job_id)


def test_cancel_during_the_upload_ends_as_cancelled(rig: Rig) -> None:
    job_id = rig.submit()
    rig.worker(rig.child(files=3000))
    until(lambda: len(rig.stored(job_id)) > 5)
    rig.cancel(job_id)
    rig.wait(job_id, "cancelled", seconds=10)
    rig.assert_nothing_left(job_id)


def test_cancel_of_a_job_whose_worker_died_is_ended_by_the_reconciler(rig: Rig) -> None:
    job_id = rig.submit()
    worker = rig.worker(rig.child(blocks=1000, seconds=0.1))
    rig.wait_block(job_id, 1)
    worker.kill()
    rig.cancel(job_id)
    rig.reconciler()
    rig.wait(job_id, "cancelled", seconds=10)
    rig.worker(rig.child())
    rig.assert_nothing_left(job_id)


def test_drain_gives_the_job_back_after_the_block(any_rig: Rig) -> None:
    job_id = any_rig.submit()
    first = any_rig.worker(any_rig.child(seconds=0.5))
    any_rig.wait_block(job_id, 1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=5) == 0
    job = any_rig.job(job_id)
    assert (job.status, job.attempt, job.crash_count) == ("queued", 0, 0)
    assert job.owner is None
    any_rig.worker(any_rig.child(seconds=0.5))
    job = any_rig.wait(job_id, "succeeded")
    assert (job.attempt, job.crash_count, job.epoch) == (1, 0, 2)
    begun = [block for _, block in any_rig.begun()]
    assert begun == sorted(set(begun))
    any_rig.assert_one_result(job_id)


def test_drain_of_an_idle_worker_is_quick(rig: Rig) -> None:
    rig.configure(poll_seconds=60.0)
    worker = rig.worker(rig.child())
    until(lambda: "worker.started" in rig.log())
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=5) == 0
    assert "worker.stopped" in rig.log()


def test_a_child_that_is_terminated_from_outside_is_no_crash(rig: Rig) -> None:
    job_id = rig.submit()
    worker = rig.worker(rig.child(blocks=10, seconds=0.2))
    rig.wait_block(job_id, 1)
    os.kill(rig.child_pid(worker), signal.SIGTERM)
    job = rig.wait(job_id, "succeeded")
    assert (job.attempt, job.crash_count, job.epoch) == (1, 0, 2)
