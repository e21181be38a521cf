"""What a search found is stored with the job's success, and never without it."""

from __future__ import annotations

import pytest

from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec
from store import presets
from store.tables import Preset
from tests.worker.rig import PROJECT, Rig
from tests.worker.samples import sample_report, search_spec
from worker import publish

MODEL = ModelRef.model_validate("hf://org/model@main")
SEARCH = search_spec()


def stored(rig: Rig, project: str = PROJECT) -> dict[str, Preset]:
    with rig.database.read() as session:
        return dict(presets.of_project(session, project))


def test_success_stores_what_was_found(any_rig: Rig) -> None:
    job_id = any_rig.submit(SEARCH)
    any_rig.worker(any_rig.child(blocks=1))
    job = any_rig.wait(job_id, "succeeded")
    any_rig.assert_one_result(job_id)
    (row,) = stored(any_rig).values()
    assert (row.name, row.job_id, row.created_by) == ("mine", job_id, "key_test")
    assert row.coefficients == {
        "alpha": 0.7321,
        "beta": 0.3,
        "gamma": 0.9679,
        "kernel": 5,
        "neighbour": "ratio",
        "found": "pho on file:///models/tiny, sparsity 0.5, 8 windows",
    }
    assert job.result is not None
    assert job.result["warnings"] == ["masks make nothing smaller"]
    assert stored(any_rig, "prj_other") == {}


def test_a_search_that_kept_ria_stores_ria(rig: Rig) -> None:
    job_id = rig.submit(SEARCH)
    rig.worker(rig.child(blocks=1, kept_ria=True))
    rig.wait(job_id, "succeeded")
    found = stored(rig)["mine"].coefficients
    assert (found["alpha"], found["beta"], found["gamma"]) == (1, 1, 0)
    assert found["found"].endswith("8 windows, RIA kept")


def test_the_second_of_two_jobs_succeeds_with_a_warning(rig: Rig) -> None:
    first, second = rig.submit(SEARCH), rig.submit(SEARCH)
    rig.worker(rig.child(blocks=1))
    rig.wait(first, "succeeded")
    job = rig.wait(second, "succeeded")
    rig.assert_one_result(second)
    assert stored(rig)["mine"].job_id == first
    assert job.result is not None
    assert job.report is not None
    for document in (job.result, job.report):
        assert "'mine' was not stored" in document["warnings"][-1]


def test_failure_stores_nothing(rig: Rig) -> None:
    job_id = rig.submit(SEARCH)
    rig.worker(rig.child(blocks=1, end="defect"))
    rig.wait(job_id, "failed")
    assert stored(rig) == {}


def test_an_attempt_that_crashed_after_its_search_stores_once(rig: Rig) -> None:
    job_id = rig.submit(SEARCH)
    rig.worker(rig.child(blocks=1, end="lie", until=1))
    job = rig.wait(job_id, "succeeded")
    assert job.attempt == 2
    assert stored(rig)["mine"].job_id == job_id
    assert job.result is not None
    assert job.result["warnings"] == ["masks make nothing smaller"]


@pytest.mark.parametrize(
    "method",
    ["wanda", "crepe", {"name": "crepe", "search": {"name": "pho"}}, {"name": "crepe", "gamma": 1}],
)
def test_who_does_not_ask_stores_nothing(method: object) -> None:
    spec = PruneSpec.model_validate({"method": method, "sparsity": 0.5})
    assert publish.preset(sample_report(spec, [], sample=""), MODEL) is None


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ({"sparsity": 0.625}, "sparsity 0.625"),
        ({"pattern": {"name": "n:m", "n": 2, "m": 4}, "sparsity": None}, "2:4 kept"),
    ],
)
def test_origin_says_model_and_amount(amount: dict[str, object], shown: str) -> None:
    spec = PruneSpec.model_validate(search_spec(**amount)["prune"])
    made = publish.preset(sample_report(spec, [], sample=""), MODEL)
    assert made is not None
    assert made.coefficients["found"] == f"pho on hf://org/model@main, {shown}, 8 windows"


def test_a_long_path_is_cut_from_the_front() -> None:
    spec = PruneSpec.model_validate(SEARCH["prune"])
    model = ModelRef(ref="file:///" + "folder/" * 500 + "tiny")
    made = publish.preset(sample_report(spec, [], sample="", kept_ria=True), model)
    assert made is not None
    assert "folder/tiny, sparsity 0.5" in made.coefficients["found"]
    assert made.coefficients["found"].startswith("pho on ...")
