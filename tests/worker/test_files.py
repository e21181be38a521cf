"""Uploaded files reach the child as paths; one that was deleted meanwhile ends the job clearly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pruning_core.datasets.uploads import examine
from pruning_core.spec.prune import PruneSpec
from store import files
from store.backends import artifacts_of, drafts_of
from store.files import NewFile
from store.tables import new_id
from tests import tiny
from tests.worker.rig import PROJECT, Rig, until
from worker.protocol import Attempt

CONTENT = b"".join(b'{"text": "document number %d of mine"}\n' % n for n in range(400))


def upload(rig: Rig, *, project: str = PROJECT) -> str:
    """Store a file as the front end does; return its name in specifications."""
    store = artifacts_of(rig.settings)
    file_id = new_id("file")
    key = files.key_of(file_id)
    with drafts_of(rig.settings).lend() as draft:
        draft.write_bytes(CONTENT)
        chosen, kind, items = examine(draft, name="mine")
        size, sha256 = store.put(draft, key)
    new = NewFile(file_id, "mine", "both", chosen, kind, items, size, sha256, key)
    with rig.database.write() as session:
        return files.create(session, new, project=project, created_by="key_test").task


def delete(rig: Rig, task: str) -> None:
    with rig.database.write() as session:
        key = files.remove(session, project=PROJECT, file_id=task.removeprefix("file:"))
    artifacts_of(rig.settings).delete(key)


def spec_naming(task: str, *, model: str = "/models/tiny") -> dict[str, Any]:
    prune = {
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"tasks": [{"name": task, "samples": 4}], "seq_len": 32},
        "evaluation": {"windows": 1, "seq_len": 32},
    }
    return {
        "model": {"ref": f"file://{model}", "revision": None},
        "prune": PruneSpec.model_validate(prune).model_dump(mode="json"),
    }


def described(rig: Rig, job_id: str) -> Attempt:
    """Return what the first attempt was told."""
    path = rig.settings.work_dir / job_id / "e1" / "attempt.json"
    until(lambda: path.exists() and path.read_text().endswith("}"))
    return Attempt.model_validate_json(path.read_text())


def test_the_child_is_told_where_its_files_lie(any_rig: Rig) -> None:
    mine = upload(any_rig)
    job_id = any_rig.submit(spec_naming(mine))
    any_rig.worker(any_rig.child(blocks=100, seconds=0.5))
    attempt = described(any_rig, job_id)
    (found,) = attempt.files.values()
    assert list(attempt.files) == [mine]
    assert (found.format, found.kind, found.use, found.items) == ("jsonl", "text", "both", 400)
    assert found.path.read_bytes() == CONTENT


def test_another_project_s_file_is_not_told(rig: Rig) -> None:
    job_id = rig.submit(spec_naming(upload(rig, project="prj_other")))
    rig.worker(rig.child(blocks=100, seconds=0.5))
    assert described(rig, job_id).files == {}


def test_a_job_calibrates_and_evaluates_on_an_uploaded_file(rig: Rig, tmp_path: Path) -> None:
    tiny.save(tmp_path / "models" / "llama", "llama")
    rig.configure(model_roots=(tmp_path / "models",))
    mine = upload(rig)
    job_id = rig.submit(spec_naming(mine, model=f"{tmp_path}/models/llama"))
    rig.worker()
    until(lambda: rig.status(job_id) in ("succeeded", "failed"), seconds=120)
    job = rig.job(job_id)
    assert job.error is None
    assert job.report is not None
    assert [line["task"] for line in job.report["perplexity"]] == [mine]


def test_a_file_that_was_deleted_meanwhile_ends_the_job_clearly(rig: Rig, tmp_path: Path) -> None:
    tiny.save(tmp_path / "models" / "llama", "llama")
    rig.configure(model_roots=(tmp_path / "models",))
    mine = upload(rig)
    delete(rig, mine)
    job_id = rig.submit(spec_naming(mine, model=f"{tmp_path}/models/llama"))
    rig.worker()
    job = rig.wait(job_id, "failed", seconds=60)
    assert job.error is not None
    assert (job.error["code"], job.error["class"], job.attempt) == ("DATASET_NOT_FOUND", "user", 1)
    assert mine in json.dumps(job.error)
