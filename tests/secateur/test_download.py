"""Downloads: whole, checked, resumed, and never half there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from secateur import Client, DownloadError
from secateur.download import fetch
from secateur.models import Manifest, ManifestFile
from secateur.transport import Transport
from tests.api.jobs import FILES, Service
from tests.secateur.proxy import Proxy

WEIGHTS = FILES["model.safetensors"]


@pytest.fixture
def job_id(client: Client, service: Service) -> str:
    job = client.submit("hf://org/model", {"method": "wanda", "sparsity": 0.5})
    service.succeed(service.claim())
    return job.id


def content(folder: Path) -> Mapping[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def part_of(destination: Path) -> Path:
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    folder = destination.with_name(destination.name + ".partial")
    folder.mkdir()
    return folder / f"model.safetensors.{digest[:16]}.part"


def test_folder_holds_exactly_the_manifest(client: Client, job_id: str, tmp_path: Path) -> None:
    counted: list[int] = []
    folder = client.download(job_id, tmp_path / "a b" / "out", on_bytes=counted.append)
    assert folder == tmp_path / "a b" / "out"
    assert content(folder) == FILES
    assert sum(counted) == sum(map(len, FILES.values()))
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_second_download_fetches_nothing(
    client: Client, proxied: Client, proxy: Proxy, job_id: str, tmp_path: Path
) -> None:
    client.download(job_id, tmp_path / "out")
    counted: list[int] = []
    proxied.download(job_id, tmp_path / "out", on_bytes=counted.append)
    assert sum(counted) == sum(map(len, FILES.values()))
    assert b"/artifacts/" not in proxy.received


def test_another_folder_s_content_is_never_overwritten(
    client: Client, job_id: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(DownloadError) as caught:
        client.download(job_id, tmp_path / "out")
    assert caught.value.code == "DESTINATION_EXISTS"
    assert content(tmp_path / "out") == {"mine": b"mine"}


def test_changed_file_in_the_destination_is_noticed(
    client: Client, job_id: str, tmp_path: Path
) -> None:
    folder = client.download(job_id, tmp_path / "out")
    weights = bytearray(WEIGHTS)
    weights[5] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(DownloadError):
        client.download(job_id, folder)


def test_empty_destination_is_taken(client: Client, job_id: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert content(client.download(job_id, tmp_path / "out")) == FILES


def test_part_of_an_earlier_run_is_taken_up(
    proxied: Client, proxy: Proxy, job_id: str, tmp_path: Path
) -> None:
    part_of(tmp_path / "out").write_bytes(WEIGHTS[:9_000_000])
    counted: list[int] = []
    folder = proxied.download(job_id, tmp_path / "out", on_bytes=counted.append)
    assert content(folder) == FILES
    assert b"range: bytes=9000000-" in proxy.received.lower()
    assert b"if-range: " in proxy.received.lower()
    assert sum(counted) == sum(map(len, FILES.values()))


@pytest.mark.parametrize("kept", [9_000_000, len(WEIGHTS), len(WEIGHTS) + 10])
def test_damaged_part_is_fetched_anew(
    client: Client, job_id: str, tmp_path: Path, kept: int
) -> None:
    damaged = b"x" + (WEIGHTS + b"0123456789")[1:kept]
    part_of(tmp_path / "out").write_bytes(damaged)
    counted: list[int] = []
    assert content(client.download(job_id, tmp_path / "out", on_bytes=counted.append)) == FILES
    assert sum(counted) == sum(map(len, FILES.values()))


def test_leftovers_of_another_job_do_not_come_along(
    client: Client, job_id: str, tmp_path: Path
) -> None:
    other = part_of(tmp_path / "out").with_name("sub") / "other.bin"
    other.parent.mkdir()
    other.write_bytes(b"other")
    assert content(client.download(job_id, tmp_path / "out")) == FILES


def test_broken_connections_are_resumed(
    proxied: Client, proxy: Proxy, job_id: str, tmp_path: Path
) -> None:
    proxied.manifest(job_id)
    proxy.cuts = [1_000_000, 2_000_000, 3_000_000]
    folder = proxied.download(job_id, tmp_path / "out")
    assert content(folder) == FILES
    assert proxy.cuts == []
    assert b"range: bytes=" in proxy.received.lower()


def test_wrong_bytes_on_the_server_never_become_a_result(
    client: Client, service: Service, job_id: str, tmp_path: Path
) -> None:
    for path in service.settings.artifacts_dir.rglob("config.json"):
        path.write_bytes(b'{"model_type": "LLAMA"}')
    with pytest.raises(DownloadError) as caught:
        client.download(job_id, tmp_path / "out")
    assert caught.value.code == "DIGEST_MISMATCH"
    assert not (tmp_path / "out").exists()


def test_longer_file_on_the_server_is_cut_off(
    client: Client, service: Service, job_id: str, tmp_path: Path
) -> None:
    for path in service.settings.artifacts_dir.rglob("config.json"):
        path.write_bytes(b"x" * 10_000_000)
    with pytest.raises(DownloadError):
        client.download(job_id, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "paths",
    [
        ["../x"],
        ["/etc/x"],
        ["a/../../x"],
        ["a\\..\\..\\x"],
        ["C:x"],
        [""],
        ["a\0b"],
        ["a\nb"],
        ["a", "A"],
        ["a", "./a"],
        ["a.part"],
    ],
)
def test_unsafe_names_are_refused_before_anything_is_written(
    tmp_path: Path, paths: list[str]
) -> None:
    files = tuple(
        ManifestFile(path=path, bytes=1, sha256="0" * 64, media_type="x", url="/") for path in paths
    )
    manifest = Manifest(job_id="job_x", total_bytes=1, files=files)
    transport = Transport("http://127.0.0.1:1", "key", retries=0, timeout=1)
    with pytest.raises(DownloadError) as caught:
        fetch(transport, manifest, tmp_path / "out", lambda _: None)
    transport.close()
    assert caught.value.code == "UNSAFE_PATH"
    assert list(tmp_path.iterdir()) == []


def test_link_in_the_partial_folder_leads_nowhere(
    client: Client, job_id: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "sub folder").symlink_to(outside)
    with pytest.raises(DownloadError) as caught:
        client.download(job_id, tmp_path / "out")
    assert caught.value.code == "UNSAFE_PATH"
    assert list(outside.iterdir()) == []


def test_a_file_may_lie_elsewhere_where_the_key_does_not_go(tmp_path: Path) -> None:
    """A server that sends on to its store, and the store."""
    asked: list[tuple[str, str | None, str | None]] = []

    class Store(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"], self.headers["Range"]))
            if self.path.startswith("/v1/"):
                self.send_response(307)
                self.send_header("Location", f"http://localhost:{store.server_port}/bucket")
                self.end_headers()
                return
            self.send_response(206)
            self.end_headers()
            self.wfile.write(WEIGHTS[4:])

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Store) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        digest = hashlib.sha256(WEIGHTS).hexdigest()
        file = ManifestFile(
            path="model.safetensors", bytes=len(WEIGHTS), sha256=digest, media_type="", url=""
        )
        manifest = Manifest(job_id="job_1", total_bytes=len(WEIGHTS), files=(file,))
        part_of(tmp_path / "out").write_bytes(WEIGHTS[:4])
        transport = Transport(f"http://127.0.0.1:{store.server_port}", "key", retries=0, timeout=5)
        fetch(transport, manifest, tmp_path / "out", lambda _: None)
        transport.close()
        store.shutdown()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == WEIGHTS
    assert asked == [
        ("/v1/jobs/job_1/artifacts/model.safetensors", "Bearer key", "bytes=4-"),
        ("/bucket", None, "bytes=4-"),
    ]
