"""A hub that is broken or hostile: nothing of a reply is believed before it is checked, nothing is read without bound."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pruning_core.datasets import hub_data
from pruning_core.datasets.declaration import Hub as HubTask
from pruning_core.errors import DatasetUnreachable, HubUnavailable, PruningError
from pruning_core.fetch import hub_client, hub_model
from pruning_core.fetch import hub_download as downloads
from tests import tiny
from tests.pruning_core.hub_stand_in import COMMIT, Handler, Hub, serving


class Hostile(Handler):
    """Answers with what the server's `spoil` makes of description, headers and body."""

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True
    ) -> None:
        described = self.path.startswith("/api/")
        status, content, headers = self.server.spoil(described, status, content, headers)
        super()._send(status, content, headers, body=body)


Spoil = Callable[[bool, int, bytes, dict[str, str]], tuple[int, bytes, dict[str, str]]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    repo = tiny.save(tmp_path / "repo", "llama")
    (repo / "rows.jsonl").write_text('{"text": "one"}\n')
    with serving({"org/m": repo, "datasets/org/m": repo}) as server:
        server.RequestHandlerClass = Hostile
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.spoil = lambda _, *answer: answer
        yield server


def saying(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Return what alters the description of a repository alone."""

    def spoil(described: bool, status: int, content: bytes, headers: dict[str, str]) -> Any:
        if described:
            content = json.dumps(change(json.loads(content))).encode()
        return status, content, headers

    return spoil


def naming(name: Any) -> Spoil:
    return saying(lambda info: info | {"siblings": [*info["siblings"], {"rfilename": name}]})


def html(described: bool, *_: Any) -> Any:
    return 200, b"<html>Sign in to the network</html>", {"Content-Type": "text/html"}


def long(described: bool, status: int, content: bytes, headers: dict[str, str]) -> Any:
    return status, b"[" * 200_000 if described else content, headers


BROKEN = {
    "html": html,
    "deep": long,
    "a list": saying(lambda info: [info]),
    "null": saying(lambda _: None),
    "no commit": saying(lambda info: {key: info[key] for key in ("id", "siblings")}),
    "commit of a path": saying(lambda info: info | {"sha": "../../../../escaped"}),
    "commit of a number": saying(lambda info: info | {"sha": 7}),
    "commit and a line": saying(lambda info: info | {"sha": f"{COMMIT}\n"}),
    "short commit": saying(lambda info: info | {"sha": "main"}),
    "siblings of text": saying(lambda info: info | {"siblings": "config.json"}),
    "siblings of numbers": saying(lambda info: info | {"siblings": [1]}),
    "upwards": naming("../escaped.json"),
    "upwards within": naming("a/../../escaped.json"),
    "absolute": naming("/escaped.json"),
    "backslash": naming("..\\escaped.json"),
    "nul": naming("a\0.json"),
    "surrogate": naming("a\ud800.json"),
    "number": naming(7),
    "nothing": naming(""),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("call", ["inspect", "download", "data"])
def test_a_reply_that_is_none_is_no_reply(call: str, broken: str, hub: Hub, tmp_path: Path) -> None:
    hub.spoil = BROKEN[broken]
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(PruningError) as caught:
        ask(call, tmp_path / "cache")
    assert isinstance(caught.value, HubUnavailable | DatasetUnreachable)
    assert caught.value.retryable
    assert sorted(os.listdir(tmp_path)) == before
    assert hub.fetched == []


def ask(call: str, cache: Path) -> None:
    if call == "inspect":
        hub_model.inspect("org/m", None)
    elif call == "download":
        downloads.download("org/m", None, cache)
    else:
        task = {
            "dataset": "hf://datasets/org/m",
            "calibration": ["rows.jsonl"],
            "evaluation": ["rows.jsonl"],
            "item": {"text": "text"},
        }
        hub_data.fetch(HubTask.model_validate(task), "calibration", cache)


@pytest.mark.parametrize(
    "header",
    [
        {"X-Repo-Commit": "../../../escaped"},
        {"X-Repo-Commit": "main"},
        {"X-Repo-Commit": "d" * 40},
        {"ETag": '"../../../../escaped"'},
        {"ETag": "/escaped"},
        {"X-Linked-ETag": '"../escaped"'},
    ],
)
def test_no_header_leads_out_of_the_cache(header: dict[str, str], hub: Hub, tmp_path: Path) -> None:
    hub.spoil = lambda _, status, content, headers: (status, content, headers | header)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(HubUnavailable):
        downloads.download("org/m", None, tmp_path / "cache")
    assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name]
    assert set(os.listdir(tmp_path)) <= {*before, "cache"}
    assert not Path("/escaped").exists()


def test_a_file_that_is_not_what_it_is_tagged_with_is_fetched_again(
    hub: Hub, tmp_path: Path
) -> None:
    folder, commit = downloads.download("org/m", None, tmp_path / "cache")
    assert commit == COMMIT
    weights = folder / "model.safetensors"
    sound = weights.read_bytes()
    for spoilt in (sound[:100], sound[:-1] + b"x"):
        weights.resolve().write_bytes(spoilt)
        hub.fetched.clear()
        assert downloads.download("org/m", None, tmp_path / "cache") == (folder, COMMIT)
        assert weights.read_bytes() == sound
        assert hub.fetched == ["model.safetensors"]


def test_a_hub_that_sends_other_bytes_than_it_says_is_told(hub: Hub, tmp_path: Path) -> None:
    def other(described: bool, status: int, content: bytes, headers: dict[str, str]) -> Any:
        return status, content if described else content[:-1] + b"!", headers

    hub.spoil = other
    with pytest.raises(HubUnavailable, match="not the file"):
        downloads.download("org/m", None, tmp_path / "cache")


class Dripping(Handler):
    """Sends one byte now and then, for ever."""

    def _send(self, status: int, *_: Any, **__: Any) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.02)
        except OSError:
            self.close_connection = True


@pytest.mark.parametrize("status", [200, 500])
def test_a_dripping_reply_ends_with_the_deadline(
    status: int, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_model, "TOTAL_SECONDS", 0.3)
    hub.RequestHandlerClass = Dripping
    started = time.monotonic()
    with pytest.raises(HubUnavailable, match="too long"):
        hub_model.inspect("org/m", None)
    assert time.monotonic() - started < 5


def test_a_description_is_bounded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "MAX_DESCRIPTION_BYTES", 50)
    with pytest.raises(HubUnavailable, match="more than 50 bytes"):
        hub_model.inspect("org/m", None)
    monkeypatch.undo()


def test_a_sound_hub_is_believed(hub: Hub, tmp_path: Path) -> None:
    shutil.copy(Path(__file__), tmp_path / "repo" / "LICENSE.md")
    folder, _ = downloads.download("org/m", "v1", tmp_path / "cache")
    assert {"config.json", "LICENSE.md", "tokenizer.json"} <= set(os.listdir(folder))
