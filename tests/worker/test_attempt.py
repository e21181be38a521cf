"""How attempts end, with a real worker process and a stand-in child."""

from __future__ import annotations

import pytest

from tests.worker.rig import Rig, alive


def test_success_is_one_set_of_artifacts_and_no_work_folder(any_rig: Rig) -> None:
    job_id = any_rig.submit()
    any_rig.worker(any_rig.child(sample="NUL: \0"))
    job = any_rig.wait(job_id, "succeeded")
    any_rig.assert_one_result(job_id)
    assert any_rig.page_key(job) in any_rig.stored(job_id)
    assert any_rig.types(job_id) == ["job.queued", "job.started", "job.succeeded"]
    assert any_rig.told(job_id) == [0, 1, 2, 3]
    assert job.resolved == {"seed": 42}
    assert job.result is not None
    assert job.result["quality"] == {"python_docs": {"ppl_dense": 10.0, "ppl_pruned": 12.0}}
    assert job.phase == "uploading"


@pytest.mark.parametrize(
    ("end", "code", "attempts"),
    [
        ("full", "DISK_FULL", 1),
        ("memory", "HOST_OOM", 1),
        ("defect", "INTERNAL", 1),
        ("killed", "POISON", 2),
        ("exit", "POISON", 2),
        ("silent", "POISON", 2),
        ("lie", "POISON", 2),
    ],
)
def test_failure_has_a_code_and_leaves_nothing(
    rig: Rig, end: str, code: str, attempts: int
) -> None:
    rig.configure(max_crashes=2)
    job_id = rig.submit()
    rig.worker(rig.child(blocks=1, end=end))
    job = rig.wait(job_id, "failed")
    assert job.error is not None
    assert (job.error["code"], job.attempt) == (code, attempts)
    assert job.error["detail"]
    assert job.error["class"] == "system"
    assert "must not read" not in str([event.detail for event in rig.events(job_id)])
    rig.assert_nothing_left(job_id)


def test_the_trace_goes_to_the_operator_alone(rig: Rig) -> None:
    job_id = rig.submit()
    rig.worker(rig.child(end="defect"))
    job = rig.wait(job_id, "failed")
    assert "the user must not read this" not in str(vars(job))
    assert "trace of RuntimeError('the user must not read this')" in rig.log()


def test_a_crash_resumes_from_the_finished_blocks(rig: Rig) -> None:
    job_id = rig.submit()
    rig.worker(rig.child(end="killed", until=1))
    job = rig.wait(job_id, "succeeded")
    assert rig.begun() == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert (job.attempt, job.crash_count, job.epoch) == (2, 1, 2)
    requeued = [event for event in rig.events(job_id) if event.type == "job.requeued"]
    assert [event.detail["reason"] for event in requeued] == ["WORKER_LOST"]
    rig.assert_one_result(job_id)


def test_a_dead_child_leaves_no_helper_behind(rig: Rig) -> None:
    """The helper holds the pipe open: without the end of the whole group nobody would hear the end."""
    job_id = rig.submit()
    rig.worker(rig.child(end="abandon", until=1))
    rig.wait(job_id, "succeeded", seconds=15)
    assert not alive(int(rig.journal.with_suffix(".helper").read_text()))


def test_a_result_that_is_not_what_the_report_lists_is_never_visible(rig: Rig) -> None:
    job_id = rig.submit()
    rig.worker(rig.child(end="lie", until=1))
    rig.wait(job_id, "succeeded")
    rig.assert_one_result(job_id)
    assert "UPLOAD_FAILED" in str([event.detail for event in rig.events(job_id)])


def test_garbage_on_stdout_changes_nothing(rig: Rig) -> None:
    job_id = rig.submit()
    rig.worker(rig.child(first="garbage"))
    job = rig.wait(job_id, "succeeded")
    assert job.attempt == 1
    rig.assert_one_result(job_id)
    assert "child.garbage" in rig.log()


def test_a_silent_child_is_killed_as_stalled(rig: Rig) -> None:
    rig.configure(stall_seconds=10.0)
    job_id = rig.submit()
    rig.worker(rig.child(first="hang", until=1, seconds=0.01))
    job = rig.wait(job_id, "succeeded")
    assert job.crash_count == 1
    reasons = [event.detail.get("reason") for event in rig.events(job_id)]
    assert "STALLED" in reasons


def test_a_worker_that_cannot_make_folders_says_so(rig: Rig) -> None:
    rig.configure(max_crashes=1)
    rig.settings.data_dir.mkdir()
    rig.settings.work_dir.write_text("in the way")
    job_id = rig.submit()
    rig.worker(rig.child())
    job = rig.wait(job_id, "failed")
    assert job.error is not None
    assert job.error["cause"] == "INTERNAL"
    assert str(rig.folder) not in str(job.error)


def test_what_a_job_writes_is_the_service_s_alone(rig: Rig) -> None:
    worker = rig.worker(rig.child(blocks=20, seconds=0.1))
    job_id = rig.submit()
    rig.wait_block(job_id, 1)
    written = list((rig.settings.work_dir / job_id).rglob("*"))
    assert written
    assert [path for path in written if path.stat().st_mode & 0o077] == []
    worker.kill()
