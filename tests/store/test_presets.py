from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from store import leases, presets
from store.artifacts import ArtifactRow
from store.presets import NewPreset
from store.session import Database
from tests.store.helpers import cancel, claim, read, submit, together

MINE = NewPreset("mine", {"alpha": 0.1 + 0.2, "kernel": 5, "found": 'pho, 50 % = "here"'})


def finish(
    database: Database,
    held: leases.Claim,
    preset: NewPreset = MINE,
    artifacts: Sequence[ArtifactRow] = (),
) -> str:
    with database.write() as session:
        return leases.finish(
            session,
            held.job_id,
            held.epoch,
            report={"r": 1, "warnings": ["first"]},
            result={"x": 2, "warnings": ["first"]},
            artifacts=artifacts,
            preset=preset,
        )


def stored(database: Database, project: str = "prj") -> dict[str, dict[str, Any]]:
    with database.read() as session:
        rows = presets.of_project(session, project)
        return {name: row.coefficients for name, row in rows.items()}


def test_success_stores_the_preset(database: Database):
    job_id = submit(database, created_by="key_7")
    assert finish(database, claim(database)) == "succeeded"
    with database.read() as session:
        (row,) = presets.of_project(session, "prj").values()
    job = read(database, job_id)
    assert (row.name, row.coefficients) == (MINE.name, MINE.coefficients)
    assert (row.job_id, row.created_by) == (job_id, "key_7")
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.started_at <= row.created_at <= job.finished_at
    assert (job.report, job.result) == (
        {"r": 1, "warnings": ["first"]},
        {"x": 2, "warnings": ["first"]},
    )


def test_presets_come_in_the_order_of_their_names(database: Database):
    for name in ("c", "a", "b"):
        submit(database)
        finish(database, claim(database), NewPreset(name, {}))
    assert list(stored(database)) == ["a", "b", "c"]


def test_a_name_that_is_taken_is_kept_and_the_job_succeeds_with_a_warning(database: Database):
    ids = [submit(database) for _ in range(2)]
    held = [claim(database) for _ in ids]
    finish(database, held[0])
    assert finish(database, held[1], NewPreset("mine", {"alpha": 9})) == "succeeded"
    assert stored(database) == {"mine": MINE.coefficients}
    job = read(database, ids[1])
    for document in (job.report, job.result):
        assert document is not None
        assert document["warnings"][0] == "first"
        assert "'mine' was not stored" in document["warnings"][1]


def test_of_jobs_that_end_together_one_gets_the_name(database: Database):
    ids = [submit(database) for _ in range(6)]
    held = [claim(database) for _ in ids]
    together(
        [lambda n=n, h=h: finish(database, h, NewPreset("x", {"n": n})) for n, h in enumerate(held)]
    )
    winner = stored(database)["x"]["n"]
    warned = [len((read(database, h.job_id).result or {})["warnings"]) - 1 for h in held]
    assert warned == [int(n != winner) for n in range(len(held))]


def test_each_project_has_its_own_names(database: Database):
    submit(database, project="a")
    submit(database, project="b")
    submit(database, project="c")
    held = [claim(database) for _ in range(2)]
    finish(database, held[0], NewPreset("mine", {"of": held[0].project}))
    finish(database, held[1], NewPreset("mine", {"of": held[1].project}))
    assert stored(database, "a") == {"mine": {"of": "a"}}
    assert stored(database, "b") == {"mine": {"of": "b"}}
    assert stored(database, "c") == {}


def test_a_cancelled_job_stores_nothing(database: Database):
    job_id = submit(database)
    held = claim(database)
    cancel(database, job_id)
    assert finish(database, held) == "cancelled"
    assert stored(database) == {}


def test_what_fails_after_the_preset_takes_it_back(database: Database):
    submit(database)
    held = claim(database)
    file = ArtifactRow(path="a", key="b", sha256="c", bytes=1)
    with pytest.raises(IntegrityError):
        finish(database, held, artifacts=[file, file])
    assert stored(database) == {}
    assert read(database, held.job_id).status == "running"
