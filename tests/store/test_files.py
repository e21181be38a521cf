from __future__ import annotations

from typing import Any

import pytest

from store import files
from store.errors import FileInUse, FileUnknown, InvalidCursor
from store.files import NewFile
from store.session import Database
from store.tables import File, new_id
from tests.store.helpers import cancel, claim, read, submit, succeed, together


def add(database: Database, *, project: str = "prj", **changes: Any) -> File:
    file_id = new_id("file")
    values = {
        "id": file_id,
        "name": "mine.jsonl",
        "use": "both",
        "format": "jsonl",
        "kind": "text",
        "items": 3,
        "bytes": 5_000_000_000,
        "sha256": file_id,
        "key": files.key_of(file_id),
        **changes,
    }
    with database.write() as session:
        return files.create(session, NewFile(**values), project=project, created_by="key_1")


def remove(database: Database, file: File, *, project: str = "prj") -> str:
    with database.write() as session:
        return files.remove(session, project=project, file_id=file.id)


def listed(database: Database, **query: Any) -> list[str]:
    """Return the names on every page."""
    names: list[str] = []
    cursor = None
    while True:
        with database.read() as session:
            page = files.page(session, project="prj", limit=2, cursor=cursor, **query)
        names += [file.name for file in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return names


def prune_of(calibration: list[str], evaluation: list[str] | None = None) -> dict[str, Any]:
    return {
        "method": {"name": "wanda"},
        "calibration": {"tasks": [{"name": name} for name in calibration]},
        "evaluation": {"tasks": evaluation},
    }


def submit_naming(database: Database, file: File, **changes: Any) -> str:
    spec = {"model": {"ref": "hf://a/b"}, "prune": prune_of([file.task])}
    return submit(database, spec=spec, **changes)


def test_a_file_is_read_as_it_was_stored(database: Database):
    made = add(database)
    with database.read() as session:
        found = files.get(session, project="prj", file_id=made.id)
    assert (found.name, found.use, found.kind, found.items) == ("mine.jsonl", "both", "text", 3)
    assert found.bytes == 5_000_000_000
    assert found.created_by == "key_1"
    assert found.created_at.tzinfo is not None
    assert found.task == f"file:{made.id}"


def test_the_same_bytes_for_the_same_use_are_one_file(database: Database):
    first = add(database, sha256="s")
    assert add(database, sha256="s", name="other").id == first.id
    assert add(database, sha256="s", use="evaluation").id != first.id
    assert add(database, sha256="s", format="text").id != first.id
    assert add(database, sha256="s", project="other").id != first.id


def test_of_equal_files_that_arrive_together_one_is_stored(database: Database):
    made = together([lambda: add(database, sha256="s").id] * 6)
    assert len(set(made)) == 1
    assert listed(database) == ["mine.jsonl"]


def test_pages_newest_first(database: Database):
    for number in range(5):
        add(database, name=str(number), use="both" if number % 2 else "evaluation")
    add(database, project="other")
    names = listed(database, order="asc")
    assert sorted(names) == ["0", "1", "2", "3", "4"]
    assert listed(database) == names[::-1]
    assert sorted(listed(database, use="both")) == ["1", "3"]


def test_a_cursor_of_jobs_or_of_other_filters_is_refused(database: Database):
    for number in range(2):
        add(database, name=str(number))
    with database.read() as session:
        cursor = files.page(session, project="prj", limit=1).next_cursor
        for query in ({"use": "both"}, {"order": "asc"}):
            with pytest.raises(InvalidCursor):
                files.page(session, project="prj", cursor=cursor, **query)
        with pytest.raises(InvalidCursor):
            files.page(session, project="other", cursor=cursor)


def test_deletion(database: Database):
    file = add(database)
    assert remove(database, file) == f"files/{file.id}"
    assert listed(database) == []
    with pytest.raises(FileUnknown, match="GET /v1/files"):
        remove(database, file)


def test_another_project_neither_reads_nor_deletes(database: Database):
    file = add(database)
    with pytest.raises(FileUnknown):
        remove(database, file, project="other")
    with database.read() as session, pytest.raises(FileUnknown):
        files.get(session, project="other", file_id=file.id)
    assert listed(database) == ["mine.jsonl"]


def test_what_a_job_needs_is_kept_until_it_has_ended(database: Database):
    file, bystander = add(database), add(database)
    job_id = submit_naming(database, file)
    with pytest.raises(FileInUse, match=job_id):
        remove(database, file)
    held = claim(database)
    with pytest.raises(FileInUse):
        remove(database, file)
    remove(database, bystander)
    succeed(database, held)
    assert remove(database, file) == file.key


def test_a_cancelled_job_needs_nothing(database: Database):
    file = add(database)
    cancel(database, submit_naming(database, file))
    remove(database, file)


def test_an_evaluation_task_is_needed_too(database: Database):
    file = add(database)
    spec = {"model": {"ref": "hf://a/b"}, "prune": prune_of(["python_docs"], [file.task])}
    submit(database, spec=spec)
    with pytest.raises(FileInUse):
        remove(database, file)


def test_a_job_of_another_project_keeps_nothing(database: Database):
    file = add(database)
    job_id = submit_naming(database, file, project="other")
    remove(database, file)
    assert read(database, job_id, project="other").status == "queued"


def test_a_specification_s_files_are_found_in_its_project(database: Database):
    mine, other = add(database), add(database, project="other")
    prune = prune_of(["python_docs", mine.task], [other.task])
    with database.read() as session:
        found = files.of_prune(session, prune, project="prj")
    assert files.named(prune) == {mine.task, other.task}
    assert list(found) == [mine.task]
    assert files.facts(found[mine.task]) == {
        "name": "mine.jsonl",
        "format": "jsonl",
        "kind": "text",
        "use": "both",
        "items": 3,
        "bytes": 5_000_000_000,
        "sha256": mine.id,
        "splits": None,
    }
