"""What is true of the artifact store that is a folder, beside what all promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.artifact_store import ArtifactStore
from store.backends import artifacts_of, drafts_of
from store.drafts import Drafts
from store.errors import ArtifactNotFound
from store.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return artifacts_of(settings)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(b"weights")
    return path


def test_keys_are_paths_and_nothing_else_is_left(
    store: ArtifactStore, settings: Settings, source: Path
):
    store.put(source, "a/b")
    files = [path for path in settings.artifacts_dir.rglob("*") if path.is_file()]
    assert files == [settings.artifacts_dir / "a/b"]
    assert files[0].samefile(source)


def test_another_file_system_gets_a_copy(
    store: ArtifactStore, settings: Settings, source: Path, monkeypatch: pytest.MonkeyPatch
):
    def cross_device(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", cross_device)
    store.put(source, "a/b")
    assert (settings.artifacts_dir / "a/b").stat().st_nlink == 1


def test_a_failed_put_leaves_nothing_behind(
    store: ArtifactStore, settings: Settings, source: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    store.put(source, "a/first")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.put(source, "a/b")
    files = [path.name for path in settings.artifacts_dir.rglob("*") if path.is_file()]
    assert files == ["first"]


def test_links_out_of_the_folder_are_refused(
    store: ArtifactStore, settings: Settings, source: Path
):
    store.put(source, "a/b")
    (settings.artifacts_dir / "a/out").symlink_to(source.parent)
    with pytest.raises(ArtifactNotFound):
        store.stat("a/out/source.bin")


def test_no_url_leads_to_it(store: ArtifactStore, source: Path):
    store.put(source, "a/b")
    assert store.presign("a/b", filename="b", media_type="text/plain") is None


def test_what_is_stored_is_the_service_s_alone(
    store: ArtifactStore, settings: Settings, source: Path
):
    before = os.umask(0)
    try:
        source.chmod(0o666)
        store.put(source, "jobs/job_1/e1/a/b")
        with drafts_of(settings).lend() as draft:
            assert draft.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    for path in settings.artifacts_dir.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_draft_is_lent(store: ArtifactStore, settings: Settings):
    with drafts_of(settings).lend() as draft:
        draft.write_bytes(b"content")
        store.put(draft, "files/x")
        assert draft.samefile(settings.artifacts_dir / "files/x")
    assert not draft.exists()
    assert b"".join(store.open("files/x")) == b"content"


def test_drafts_of_the_dead_are_swept_and_those_in_use_stay(tmp_path: Path):
    drafts = Drafts(tmp_path)
    code = (
        "import os, sys; from pathlib import Path; from store.drafts import Drafts\n"
        "with Drafts(Path(sys.argv[1])).lend() as draft:\n"
        "    draft.write_bytes(b'half'); print(draft, flush=True); os.kill(os.getpid(), 9)"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    dead = Path(told.stdout.decode().strip())
    assert dead.read_bytes() == b"half"
    with drafts.lend() as alive:
        drafts.sweep()
        assert dead.exists()  # a young one might not be held yet
        drafts.sweep(older_than=0)
        assert alive.exists()
        assert not dead.exists()
