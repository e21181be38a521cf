"""A job that misses a quality gate fails, and keeps everything that it made."""

from __future__ import annotations

from typing import Any

from store import presets
from tests.worker.rig import PROJECT, Rig
from tests.worker.samples import SPEC, search_spec


def gated(most: float) -> list[dict[str, Any]]:
    return [{"metric": "python_docs.ppl", "max": most}]


def with_gates(most: float) -> dict[str, Any]:
    return {**SPEC, "prune": {**SPEC["prune"], "gates": gated(most)}}


def test_a_gate_that_is_met_changes_nothing(rig: Rig) -> None:
    job_id = rig.submit(with_gates(12.5))
    rig.worker(rig.child(blocks=1))
    job = rig.wait(job_id, "succeeded")
    assert job.result is not None
    bounds = {"metric": "python_docs.ppl", "min": None, "max": 12.5}
    assert job.result["gates"] == [bounds | {"value": 12.0, "interval": None, "passed": True}]


def test_a_missed_gate_fails_the_job_and_keeps_its_results(any_rig: Rig) -> None:
    job_id = any_rig.submit(with_gates(11.5))
    any_rig.worker(any_rig.child(blocks=1))
    job = any_rig.wait(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "QUALITY_GATE_FAILED"
    assert not job.error["retryable"]
    assert "python_docs.ppl is 12, allowed: at most 11.5" in job.error["detail"]
    assert job.report is not None
    assert job.report["gates"][0]["passed"] is False
    any_rig.assert_one_result(job_id, "failed")
    assert any_rig.types(job_id)[-1] == "job.failed"
    assert job.attempt == 1


def test_a_search_whose_model_misses_a_gate_stores_no_preset(rig: Rig) -> None:
    job_id = rig.submit(search_spec(gates=gated(1.0)))
    rig.worker(rig.child(blocks=1))
    assert rig.wait(job_id, "failed").report is not None
    with rig.database.read() as session:
        assert presets.of_project(session, PROJECT) == {}
