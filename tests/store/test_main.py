from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from store import keys
from store.__main__ import main
from store.session import Database


@pytest.fixture
def url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SECATEUR_DATABASE_URL", database_url)
    return database_url


def test_keys_are_made_and_ended(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["create-key", "--name", "ci", "--project", "edge", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    database = Database(url)
    with database.write() as session:
        assert keys.authenticate(session, made["secret"])[0].project == "edge"
    assert main(["revoke-key", made["id"]]) == 0
    with pytest.raises(keys.KeyInvalid), database.write() as session:
        keys.authenticate(session, made["secret"])
    database.dispose()


def test_an_unknown_key_is_reported(url: str, capsys: pytest.CaptureFixture[str]):
    assert main(["revoke-key", "key_none"]) == 1
    assert capsys.readouterr().err.startswith("NOT_FOUND: ")


def test_an_unmigrated_database_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("SECATEUR_DATABASE_URL", f"sqlite:///{tmp_path}/empty.db")
    assert main(["create-key", "--name", "ci"]) == 1
    assert "python -m store migrate" in capsys.readouterr().err


def test_a_fresh_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path / "a b" / "data"))
    for command in (["migrate"], ["create-key", "--name", "first"]):
        done = subprocess.run(
            [sys.executable, "-m", "store", *command], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
    assert "secret: pk_live_" in done.stdout
