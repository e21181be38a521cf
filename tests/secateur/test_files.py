"""Uploads by the client and the command line, against a real server process."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from secateur import Client, Conflict, Invalid, NotFound
from tests.api.jobs import Service
from tests.secateur.conftest import Run
from tests.secateur.proxy import Proxy

MODEL = "hf://org/model"
LINES = b"".join(b'{"text": "%d %s"}\n' % (n, b"word " * 400) for n in range(2500))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "my data.jsonl"
    path.write_bytes(LINES)
    return path


def test_upload_read_list_delete(client: Client, path: Path) -> None:
    told: list[int] = []
    file = client.upload(path, use="calibration", on_bytes=told.append)
    assert (file.name, file.use, file.items) == ("my data.jsonl", "calibration", 2500)
    assert file.sha256 == hashlib.sha256(LINES).hexdigest()
    assert sum(told) == len(LINES) > 5_000_000
    assert client.file(file.id) == client.file(file.task) == file
    assert list(client.files()) == [file]
    assert list(client.files(use="evaluation")) == []
    client.delete_file(file.task)
    with pytest.raises(NotFound):
        client.file(file.id)


def test_a_lost_connection_makes_no_second_file(
    proxied: Client, client: Client, proxy: Proxy, path: Path
) -> None:
    told: list[int] = []
    proxy.cuts = [10, 200]
    file = proxied.upload(path, on_bytes=told.append)
    assert proxy.connections == 3
    assert [found.id for found in client.files()] == [file.id]
    assert sum(told) == len(LINES)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b"{one}\n\ntwo", "text"),
        ("a.md", b"# one", "text"),
        ("a.ndjson", b'{"text": "x"}', "jsonl"),
        ("unknown", b'\n{"text": "x"}', "jsonl"),
        ("unknown", b"one", "text"),
    ],
)
def test_format_comes_from_the_name_or_the_content(
    client: Client, tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert client.upload(tmp_path / name, name="a name").format == expected


def test_bad_data_is_a_typed_exception(client: Client, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "x"}\n{')
    with pytest.raises(Invalid) as caught:
        client.upload(tmp_path / "bad.jsonl")
    assert caught.value.code == "DATASET_INVALID"
    assert (caught.value.detail or "").startswith("bad.jsonl, line 2: not JSON")


def test_a_job_names_it_and_keeps_it(client: Client, service: Service, path: Path) -> None:
    file = client.upload(path)
    prune = {
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"tasks": [file.task], "seq_len": 128},
    }
    job = client.submit(MODEL, prune)
    with pytest.raises(Conflict) as caught:
        client.delete_file(file.id)
    assert caught.value.code == "FILE_IN_USE"
    client.cancel(job.id)
    client.delete_file(file.id)


def test_files_commands(run: Run, path: Path) -> None:
    made = run("files", "upload", path.name, "--use", "calibration")
    assert made.returncode == 0, made.stderr
    task = made.stdout.strip()
    again = json.loads(run("files", "upload", path.name, "--use", "calibration", "--json").stdout)
    assert again["task"] == task
    (line,) = run("files", "list").stdout.splitlines()[1:]
    assert line.split()[:7] == [
        task,
        "my",
        "data.jsonl",
        "calibration",
        "text",
        "2500",
        str(len(LINES)),
    ]
    assert [file["task"] for file in json.loads(run("files", "list", "--json").stdout)] == [task]
    shown = run("files", "show", task).stdout
    assert "my data.jsonl" in shown
    assert json.loads(run("files", "show", task, "--json").stdout) == again
    assert run("files", "delete", task).stdout.strip() == "deleted"
    gone = run("files", "show", task)
    assert (gone.returncode, gone.stderr.split()[0]) == (3, "NOT_FOUND")


def test_upload_of_a_path_that_is_none_exits_with_2(run: Run) -> None:
    assert run("files", "upload", "nothing.jsonl").returncode == 2


def test_refusal_is_one_readable_block(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"txt": "x"}')
    done = run("files", "upload", "bad.jsonl")
    assert done.returncode == 3
    assert "DATASET_INVALID bad.jsonl, line 1: not an object with `text`" in done.stderr
    assert "Traceback" not in done.stderr
