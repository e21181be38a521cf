"""A small hub on loopback: serves folders as model and dataset repositories."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories, those of datasets under `datasets/<name>`; notes which files were asked for."""

    def __init__(self, repos: Mapping[str, Path]) -> None:
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
        parts = [unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]
        is_api = parts[0] == "api"
        parts = parts[1:] if is_api else parts
        prefix = ""
        if parts[0] in ("models", "datasets"):
            prefix, parts = parts[0].replace("models", ""), parts[1:]
        repo = "/".join(filter(None, (prefix, *parts[:2])))
        if is_api and "tree" in parts:
            self._list(repo)
        elif is_api:
            self._describe(repo, parts[3] if len(parts) > 3 else "main")
        elif len(parts) < 5:
            self._refuse(404, "EntryNotFound")
        else:
            self._file(repo, parts[3], "/".join(parts[4:]), body=body)

    def _describe(self, repo: str, revision: str) -> None:
        if repo.endswith("org/gated"):
            return self._refuse(403, "GatedRepo")
        if repo not in self.server.repos:
            return self._refuse(401, "RepoNotFound")
        if revision not in ("main", "v1", "refs/convert/parquet", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        names = [name for name, _ in self._files(repo)]
        info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _list(self, repo: str) -> None:
        entries = [
            {
                "type": "file",
                "path": name,
                "size": path.stat().st_size,
                "oid": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for name, path in self._files(repo)
        ]
        self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _files(self, repo: str) -> list[tuple[str, Path]]:
        root = self.server.repos[repo]
        return sorted((str(path.relative_to(root)), path) for path in root.rglob("*.*"))

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


@contextmanager
def serving(repos: Mapping[str, Path]) -> Iterator[Hub]:
    server = Hub(repos)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
