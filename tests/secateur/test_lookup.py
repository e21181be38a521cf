"""A unique beginning of an id and a name do wherever an id does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secateur import Ambiguous, Client, NotFound, lookup
from store.tables import Job
from tests.api.jobs import FILES, Service
from tests.secateur.conftest import Run

PRUNE = {"method": "wanda", "sparsity": 0.5}
IDS = (
    "job_01AAAAAAAAAAAAAAAAAAAAAAAA",
    "job_01AAAAAAAAAAAAAAAAAAAAAAAB",
    "job_02AAAAAAAAAAAAAAAAAAAAAAAA",
)


@pytest.fixture
def ids(client: Client, service: Service) -> tuple[str, ...]:
    """Three jobs, of known ids, the first two of one name."""
    for new, name in zip(IDS, ("twin", "twin", "my model, 50 %"), strict=True):
        made = client.submit("hf://org/model", PRUNE, name=name)
        client.cancel(made.id)
        with service.database.write() as session:
            session.connection().exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            for table, column in (
                ("jobs", "id"),
                ("job_events", "job_id"),
                ("idempotency", "job_id"),
            ):
                session.connection().exec_driver_sql(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, made.id)
                )
            assert session.get(Job, new) is not None
    return IDS


@pytest.mark.parametrize(
    "text", [IDS[2], "job_02AAAA", "job_02", "02", "02a", "Job_02aa", "my model, 50 %"]
)
def test_one_fits(client: Client, ids: tuple[str, ...], text: str) -> None:
    assert lookup.job_id(client, text) == ids[2]


@pytest.mark.parametrize("text", ["twin", "01", "job_01AAAAAAAAAAAAAAAAAAAAAAA", "job_0", "0"])
def test_several_fit_and_are_listed(client: Client, ids: tuple[str, ...], text: str) -> None:
    with pytest.raises(Ambiguous) as caught:
        lookup.job_id(client, text)
    listed = " ".join(caught.value.suggestions)
    assert all(one in listed for one in ids[:2])
    assert "twin, cancelled" in listed


@pytest.mark.parametrize(
    "text", ["03", "twi", "TWIN", "", "job_", "file_01", "../x", "a\nb", "ä", "%"]
)
def test_none_fits(client: Client, ids: tuple[str, ...], text: str) -> None:
    with pytest.raises(NotFound, match="NOT_FOUND"):
        lookup.job_id(client, text)


def test_commands_take_names(run: Run, service: Service, tmp_path: Path) -> None:
    submit = ("submit", "--model", "hf://org/model", "--method", "wanda", "--sparsity", "50%")
    job_id = run(*submit, "--name", "mine").stdout.strip()
    assert json.loads(run("show", "mine", "--json").stdout)["id"] == job_id
    service.succeed(service.claim())
    for command in ("show", "report", "watch"):
        done = run(command, "mine")
        assert done.returncode == 0, done.stderr
    assert run("download", job_id[:-1]).returncode == 0
    assert (tmp_path / job_id / "config.json").read_bytes() == FILES["config.json"]
    run(*submit, "--name", "mine")
    done = run("show", "mine")
    assert (done.returncode, done.stderr.split()[0]) == (3, "AMBIGUOUS")
    assert job_id in done.stderr
    done = run("cancel", "yours")
    assert (done.returncode, done.stderr.split()[0]) == (3, "NOT_FOUND")


def test_files_take_names_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "my text.jsonl").write_text('{"text": "one"}\n' * 3)
    task = run("files", "upload", "my text.jsonl").stdout.strip()
    for text in (
        task,
        task.removeprefix("file:"),
        task[:-2],
        "my text.jsonl",
        "file:my text.jsonl",
    ):
        assert json.loads(run("files", "show", text, "--json").stdout)["task"] == task
    assert run("files", "delete", "my text.jsonl").returncode == 0
    assert run("files", "show", task).returncode == 3
