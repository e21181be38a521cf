"""What every artifact store promises: each implementation stands in `STORES` and passes all of this."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from store.artifact_store import ArtifactStore
from store.backends import artifacts_of
from store.errors import ArtifactNotFound
from store.settings import Settings

STORES: Final[Mapping[str, Callable[[Path], ArtifactStore]]] = {
    "local": lambda folder: artifacts_of(Settings(data_dir=folder)),
}
KEY = "jobs/j/e1/sub/model.safetensors"
NO_KEYS = ["", ".", "/etc/passwd", "../x", "a/../../x", "a/..", "a\0b"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return STORES[request.param](tmp_path / "data")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(b"weights")
    return path


def read(store: ArtifactStore, key: str, *bounds: int) -> bytes:
    return b"".join(store.open(key, *bounds))


def test_a_file_arrives_whole_and_hashed(store: ArtifactStore, source: Path):
    content = os.urandom(3_000_000)
    source.write_bytes(content)
    told: list[int] = []
    size, digest = store.put(source, KEY, told.append)
    assert read(store, KEY) == content
    assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
    assert sum(told) == len(content)
    assert list(store.list("jobs")) == [KEY]


def test_an_empty_file_is_a_file(store: ArtifactStore, source: Path):
    source.write_bytes(b"")
    assert store.put(source, KEY) == (0, hashlib.sha256().hexdigest())
    stored = store.stat(KEY)
    assert stored is not None
    assert (read(store, KEY), stored.bytes) == (b"", 0)


def test_the_file_outlives_its_source(store: ArtifactStore, source: Path):
    store.put(source, KEY)
    source.unlink()
    assert read(store, KEY) == b"weights"


def test_a_second_put_replaces(store: ArtifactStore, source: Path, tmp_path: Path):
    store.put(source, KEY)
    other = tmp_path / "other"
    other.write_bytes(b"new")
    store.put(other, KEY)
    assert read(store, KEY) == b"new"


def test_a_source_that_is_no_regular_file_is_refused(
    store: ArtifactStore, source: Path, tmp_path: Path
):
    link = tmp_path / "link"
    link.symlink_to(source)
    for path in (link, tmp_path, tmp_path / "nothing"):
        with pytest.raises(ArtifactNotFound, match="regular file"):
            store.put(path, KEY)
    assert store.stat(KEY) is None


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 0), (0, 1), (3, 5), (6, 7), (2, None), (7, None), (300_001, 700_000)],
)
def test_a_range_is_what_a_slice_is(
    store: ArtifactStore, source: Path, start: int, stop: int | None
):
    content = b"weights" if start < 10 else os.urandom(1_000_000)
    source.write_bytes(content)
    store.put(source, KEY)
    assert b"".join(store.open(KEY, start, stop)) == content[start:stop]


def test_what_is_fetched_outlives_what_is_stored(
    store: ArtifactStore, source: Path, tmp_path: Path
):
    store.put(source, KEY)
    store.fetch(KEY, tmp_path / "fetched")
    store.delete(KEY)
    assert (tmp_path / "fetched").read_bytes() == b"weights"


def test_size_and_time_are_known(store: ArtifactStore, source: Path):
    store.put(source, KEY)
    stored = store.stat(KEY)
    assert stored is not None
    assert stored.bytes == 7
    assert abs(stored.modified - datetime.now(UTC)) < timedelta(minutes=5)


def test_what_is_not_there(store: ArtifactStore, source: Path, tmp_path: Path):
    store.put(source, KEY)
    for key in ("jobs/j/e1/sub", "jobs/j/e1/sub/model", f"{KEY}/x", "other"):
        assert store.stat(key) is None
        with pytest.raises(ArtifactNotFound):
            read(store, key)
        with pytest.raises(ArtifactNotFound):
            store.fetch(key, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
    assert list(store.list("other")) == []
    store.delete("other")
    store.delete_below("other")
    assert read(store, KEY) == b"weights"


def test_deleting_a_file_spares_its_neighbours(store: ArtifactStore, source: Path):
    for key in ("a/b", "a/bc"):
        store.put(source, key)
    store.delete("a/b")
    store.delete("a/b")
    assert list(store.list("a")) == ["a/bc"]


def test_a_prefix_ends_at_a_step(store: ArtifactStore, source: Path):
    for key in ("jobs/j/e1/x", "jobs/j/e1/y/z", "jobs/j/e10/x"):
        store.put(source, key)
    assert set(store.list("jobs/j/e1")) == {"jobs/j/e1/x", "jobs/j/e1/y/z"}
    store.delete_below("jobs/j/e1")
    store.delete_below("jobs/j/e1")
    assert list(store.list("jobs")) == ["jobs/j/e10/x"]


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_leads_elsewhere_is_no_key(
    store: ArtifactStore, source: Path, tmp_path: Path, key: str
):
    for action in (
        store.stat,
        store.delete,
        store.delete_below,
        lambda key: read(store, key),
        lambda key: list(store.list(key)),
        lambda key: store.put(source, key),
        lambda key: store.fetch(key, tmp_path / "fetched"),
        lambda key: store.presign(key, filename="x", media_type="text/plain"),
    ):
        with pytest.raises(ArtifactNotFound):
            action(key)


def test_odd_names_are_keys(store: ArtifactStore, source: Path):
    for key in ("files/x y", "files/ä💣", "files/a%2fb", "files/x?y#z"):
        store.put(source, key)
        assert list(store.list("files")) == [key]
        assert read(store, key) == b"weights"
        store.delete(key)
