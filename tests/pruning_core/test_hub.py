"""The hub client against a small hub on loopback: resolving, fetching, resuming the cache, and every refusal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pruning_core.checkpoints.facts import inspect
from tests import tiny
from tests.pruning_core.hub_stand_in import COMMIT, Hub, serving

CALL = (
    "import json, sys; from pathlib import Path\n"
    "from pruning_core.fetch.hub_download import download; from pruning_core.errors import PruningError\n"
    "repo, revision, cache = sys.argv[1:]\n"
    "try: print(json.dumps([str(part) for part in download(repo, revision or None, Path(cache))]))\n"
    "except PruningError as error: print(json.dumps(error.payload()))\n"
)


NEEDLESS = (
    "consolidated.safetensors",
    "model.fp16.safetensors",
    "model-00001-of-00001.safetensors",
    "original/model.safetensors",
)


def shard_only(folder: Path) -> None:
    """Leave the weights in one shard of an unusual name."""
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "part [1].safetensors")
    content = {"metadata": {}, "weight_map": dict.fromkeys(names, "part [1].safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    sound = tiny.save(root / "sound", "llama")
    (sound / "modeling_evil.py").write_text("raise SystemExit")
    (sound / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (sound / "original").mkdir()
    for name in NEEDLESS:
        shutil.copyfile(sound / "model.safetensors", sound / name)
    shutil.copytree(sound, root / "sharded")
    shard_only(root / "sharded")
    (root / "pickled").mkdir()
    (root / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (root / "empty").mkdir()
    (root / "empty" / "README.md").write_text("nothing")
    repos = {f"org/{name}": root / name for name in ("sound", "sharded", "pickled", "empty")}
    with serving(repos) as server:
        yield server


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
    assert inspect(Path(folder)).model_type == "llama"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(hub.fetched)
    assert not {"modeling_evil.py", "pytorch_model.bin", *NEEDLESS} & set(hub.fetched)
    count = len(hub.fetched)
    assert download(hub.url, "org/sound", COMMIT, tmp_path) == [folder, COMMIT]
    assert len(hub.fetched) == count


def test_of_a_sharded_model_the_shards_of_its_index_are_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.fetched.clear()
    folder, _ = download(hub.url, "org/sharded", "", tmp_path)
    weights = [name for name in hub.fetched if ".safetensors" in name]
    assert sorted(weights) == ["model.safetensors.index.json", "part [1].safetensors"]
    assert set(inspect(Path(folder)).files.values()) == {"part [1].safetensors"}


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
