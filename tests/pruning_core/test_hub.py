"""The hub client against a small hub on loopback: resolving, fetching, resuming the cache, and every refusal."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pruning_core.intake.checkpoint import inspect
from tests import tiny

COMMIT = "c" * 40
CALL = (
    "import json, sys; from pathlib import Path\n"
    "from pruning_core.engine.hub import download; from pruning_core.errors import PruningError\n"
    "repo, revision, cache = sys.argv[1:]\n"
    "try: print(json.dumps([str(part) for part in download(repo, revision or None, Path(cache))]))\n"
    "except PruningError as error: print(json.dumps(error.payload()))\n"
)


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories; notes which files were asked for."""

    def __init__(self, repos: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos = repos
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def _answer(self, *, body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and "tree" in parts:
            self._list("/".join(parts[2:4]))
        elif parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif len(parts) < 5:
            self._refuse(404, "EntryNotFound")
        else:
            self._file("/".join(parts[:2]), parts[3], parts[4], body=body)

    def _describe(self, repo: str, revision: str) -> None:
        if repo == "org/gated":
            return self._refuse(403, "GatedRepo")
        if repo not in self.server.repos:
            return self._refuse(401, "RepoNotFound")
        if revision not in ("main", "v1", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        names = sorted(path.name for path in self.server.repos[repo].iterdir())
        info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _list(self, repo: str) -> None:
        entries = [
            {
                "type": "file",
                "path": path.name,
                "size": path.stat().st_size,
                "oid": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in sorted(self.server.repos[repo].iterdir())
        ]
        self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _file(self, repo: str, revision: str, name: str, *, body: bool) -> None:
        assert revision == COMMIT  # never a branch, which could move between two files
        content = (self.server.repos[repo] / name).read_bytes()
        if body:
            self.server.fetched.append(name)
        tag = hashlib.sha256(content).hexdigest()
        self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, body=body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    sound = tiny.save(root / "sound", "llama")
    (sound / "modeling_evil.py").write_text("raise SystemExit")
    (sound / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (root / "pickled").mkdir()
    (root / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (root / "empty").mkdir()
    (root / "empty" / "README.md").write_text("nothing")
    repos = {f"org/{name}": root / name for name in ("sound", "pickled", "empty")}
    server = Hub(repos)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def download(url: str, repo: str, revision: str, cache: Path) -> Any:
    """Call the downloader in a fresh process, because its endpoint is read at import."""
    environment = [f"HF_ENDPOINT={url}", "HF_HUB_DISABLE_PROGRESS_BARS=1", f"HF_HOME={cache}/home"]
    result = subprocess.run(
        ["env", *environment, sys.executable, "-c", CALL, repo, revision, str(cache)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


def test_a_revision_is_resolved_and_only_safe_files_are_fetched_once(
    hub: Hub, tmp_path: Path
) -> None:
    folder, commit = download(hub.url, "org/sound", "v1", tmp_path)
    assert commit == COMMIT
    assert inspect(Path(folder), root=tmp_path).model_type == "llama"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(hub.fetched)
    assert not {"modeling_evil.py", "pytorch_model.bin"} & set(hub.fetched)
    count = len(hub.fetched)
    assert download(hub.url, "org/sound", COMMIT, tmp_path) == [folder, COMMIT]
    assert len(hub.fetched) == count


@pytest.mark.parametrize(
    ("repo", "revision", "code"),
    [
        ("org/nowhere", "", "MODEL_NOT_FOUND"),
        ("org/sound", "nowhere", "MODEL_NOT_FOUND"),
        ("org/gated", "", "MODEL_GATED"),
        ("org/pickled", "", "UNSAFE_PICKLE"),
        ("org/empty", "", "MODEL_INVALID"),
    ],
)
def test_what_the_hub_refuses_has_its_own_code(
    repo: str, revision: str, code: str, hub: Hub, tmp_path: Path
) -> None:
    assert download(hub.url, repo, revision, tmp_path)["code"] == code


def test_a_hub_that_does_not_answer_is_worth_another_try(tmp_path: Path) -> None:
    refused = download("http://127.0.0.1:9", "org/sound", "", tmp_path)
    assert (refused["code"], refused["retryable"]) == ("HUB_UNAVAILABLE", True)
