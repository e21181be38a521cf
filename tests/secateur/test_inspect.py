"""`Client.inspect` and `secateur inspect`, against a real server that allows a folder of models."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur import ApiError, Client
from secateur.config import child_environment
from tests import tiny
from tests.api.jobs import Service
from tests.secateur.conftest import await_ready
from tests.servers import free_port


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny.save(root / "gpt2", "gpt2")
    return tiny.save(root / "a llama", "llama", intermediate_size=1024)


@pytest.fixture(scope="module")
def credentials(
    sqlite_template: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    data = tmp_path_factory.mktemp("data")
    shutil.copyfile(sqlite_template, data / "secateur.db")
    service = Service.over(f"sqlite:///{data}/secateur.db", data)
    service.database.dispose()
    url = f"http://127.0.0.1:{(port := free_port())}"
    settings = {
        "SECATEUR_DATA_DIR": str(data),
        "SECATEUR_PORT": str(port),
        "SECATEUR_DATABASE_URL": "",
        "SECATEUR_MODEL_ROOTS": str(folder.parent),
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.Popen([sys.executable, "-m", "api"], env=child_environment(settings))
    try:
        await_ready(url, process)
        yield {"SECATEUR_URL": url, "SECATEUR_API_KEY": service.secret}
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def client(credentials: dict[str, str]) -> Iterator[Client]:
    url, key = credentials.values()
    with Client(url, key, retries=0) as made:
        yield made


def run(credentials: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secateur.cli", "inspect", *arguments],
        env=child_environment(credentials),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_client_returns_axes_and_methods(client: Client, folder: Path) -> None:
    found = client.inspect(folder, multiple_of=[16, 256])
    assert (found.model_type, found.family, found.blocks) == ("llama", "llama", tiny.BLOCKS)
    assert [kept["multiple_of"] for kept in found.axis("neurons").kept] == [16, 256]
    assert found.axis("kv_groups").unit_parameters == 3 * 6 * 8 * 32
    assert all(fit.possible for fit in found.methods)
    default = client.inspect(folder.as_uri())
    assert [kept["multiple_of"] for kept in default.axis("hidden").kept] == [8, 64, 128]


def test_client_raises_what_the_server_says(client: Client, folder: Path) -> None:
    for model, code in (("file:///etc", "MODEL_NOT_ALLOWED"), ("hf://a/b", "HUB_UNAVAILABLE")):
        with pytest.raises(ApiError) as refused:
            client.inspect(model)
        assert refused.value.code == code
    with pytest.raises(ApiError, match="only `hf://` models have a revision"):
        client.inspect(folder, revision="main")


def test_table_shows_sizes_costs_and_rules(credentials: dict[str, str], folder: Path) -> None:
    done = run(credentials, str(folder))
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    for text in ("1,024", "288", "multiples of 8: 8 to 1,016, in steps of 8"):
        assert text in lines["neurons per feed-forward"]
    for text in ("1 (-1.4%)", "4,608"):
        assert text in lines["key-value groups per block"]
    assert "must divide hidden_size (32): llama refuses" in done.stdout
    assert "multiples of 128: 128 (-" in done.stdout
    assert "kv_groups neurons" in lines["wanda_sp"]


def test_table_says_why_units_cannot_go(credentials: dict[str, str], folder: Path) -> None:
    done = run(credentials, str(folder.parent / "gpt2"))
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert lines["residual dimensions"].rstrip().endswith("all")
    assert "residual dimensions: none can go: its LayerNorms" in done.stdout
    assert lines["diet"].split()[1] == "neurons"


def test_json_is_the_answer(credentials: dict[str, str], folder: Path) -> None:
    done = run(credentials, str(folder), "--multiple-of", "32", "--multiple-of", "8", "--json")
    found = json.loads(done.stdout)
    assert found["object"] == "model.inspection"
    assert [kept["multiple_of"] for kept in found["axes"][0]["kept"]] == [8, 32]
    assert found["axes"][0]["kept"][0]["from"] == 8


def test_a_model_that_may_not_be_read_is_one_readable_error(credentials: dict[str, str]) -> None:
    done = run(credentials, "file:///etc")
    assert done.returncode == 3
    assert done.stderr.startswith("MODEL_NOT_ALLOWED")
