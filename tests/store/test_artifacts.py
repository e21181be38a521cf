from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from store import artifacts
from store.artifacts import LocalArtifacts
from store.errors import ArtifactNotFound
from store.session import Database
from tests.store.helpers import submit


@pytest.fixture
def folder(tmp_path: Path) -> LocalArtifacts:
    return LocalArtifacts(tmp_path / "artifacts")


def source(tmp_path: Path, content: bytes = b"weights") -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(content)
    return path


def test_a_file_arrives_whole_and_hashed(folder: LocalArtifacts, tmp_path: Path):
    content = os.urandom(3_000_000)
    size, digest = folder.put(source(tmp_path, content), "jobs/j/e1/sub/model.safetensors")
    stored = folder.path("jobs/j/e1/sub/model.safetensors")
    assert stored.read_bytes() == content
    assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
    assert [p.name for p in stored.parent.iterdir()] == ["model.safetensors"]


def test_the_file_outlives_its_source(folder: LocalArtifacts, tmp_path: Path):
    path = source(tmp_path)
    folder.put(path, "a/b")
    path.unlink()
    assert folder.path("a/b").read_bytes() == b"weights"


def test_another_file_system_gets_a_copy(
    folder: LocalArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def cross_device(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", cross_device)
    folder.put(source(tmp_path), "a/b")
    assert folder.path("a/b").stat().st_nlink == 1


def test_a_second_put_replaces(folder: LocalArtifacts, tmp_path: Path):
    folder.put(source(tmp_path), "a/b")
    other = tmp_path / "other"
    other.write_bytes(b"new")
    folder.put(other, "a/b")
    assert folder.path("a/b").read_bytes() == b"new"


def test_a_failed_put_leaves_nothing_behind(
    folder: LocalArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    folder.put(source(tmp_path), "a/first")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.put(source(tmp_path), "a/b")
    assert [p.name for p in folder.path("a").iterdir()] == ["first"]


@pytest.mark.parametrize("key", ["", ".", "/etc/passwd", "../x", "a/../../x", "a/..", "a\0b"])
def test_keys_cannot_leave_the_folder(folder: LocalArtifacts, tmp_path: Path, key: str):
    for action in (
        folder.path,
        folder.delete_prefix,
        lambda key: folder.put(source(tmp_path), key),
    ):
        with pytest.raises(ArtifactNotFound):
            action(key)


def test_links_out_of_the_folder_are_refused(folder: LocalArtifacts, tmp_path: Path):
    folder.put(source(tmp_path), "a/b")
    folder.path("a").joinpath("out").symlink_to(tmp_path)
    with pytest.raises(ArtifactNotFound):
        folder.path("a/out/source.bin")


def test_a_source_that_is_a_link_is_refused(folder: LocalArtifacts, tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(source(tmp_path))
    with pytest.raises(ArtifactNotFound):
        folder.put(link, "a/b")


def test_deleting_a_prefix_spares_its_neighbours(folder: LocalArtifacts, tmp_path: Path):
    for key in ("jobs/j/e1/x", "jobs/j/e10/x"):
        folder.put(source(tmp_path), key)
    folder.delete_prefix("jobs/j/e1")
    folder.delete_prefix("jobs/j/e1")
    assert not folder.path("jobs/j/e1/x").exists()
    assert folder.path("jobs/j/e10/x").exists()


def test_rows_of_an_unfinished_job(database: Database):
    job_id = submit(database)
    with database.read() as session:
        assert artifacts.rows(session, job_id) == []
        with pytest.raises(ArtifactNotFound, match="manifest"):
            artifacts.row(session, job_id, "model.safetensors")


def test_what_is_stored_is_the_service_s_alone(tmp_path: Path):
    store, source = LocalArtifacts(tmp_path / "root"), tmp_path / "source"
    before = os.umask(0)
    try:
        source.write_bytes(b"x")
        store.put(source, "jobs/job_1/e1/a/b")
        with store.draft() as draft:
            assert draft.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    for path in (tmp_path / "root").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_drafts_of_the_dead_are_swept_and_those_in_use_stay(tmp_path: Path):
    store = LocalArtifacts(tmp_path)
    code = (
        "import os, sys; from pathlib import Path; from store.artifacts import LocalArtifacts\n"
        "with LocalArtifacts(Path(sys.argv[1])).draft() as draft:\n"
        "    draft.write_bytes(b'half'); print(draft, flush=True); os.kill(os.getpid(), 9)"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    dead = Path(told.stdout.decode().strip())
    assert dead.read_bytes() == b"half"
    with store.draft() as alive:
        store.sweep_drafts()
        assert dead.exists()  # a young one might not be held yet
        store.sweep_drafts(older_than=0)
        assert alive.exists()
        assert not dead.exists()
