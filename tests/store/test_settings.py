from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import Settings


def test_defaults_lie_below_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path / "a b"))
    settings = Settings()
    assert settings.database_url == f"sqlite:///{tmp_path}/a b/secateur.db"
    assert settings.artifacts_dir == tmp_path / "a b/artifacts"
    assert settings.broker_url is None
    assert settings.model_roots == ()


def test_model_roots_are_separated_as_paths_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_MODEL_ROOTS", os.pathsep.join(["/a b", "~/models"]))
    assert Settings().model_roots == (Path("/a b"), Path.home() / "models")


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECATEUR_BROKER_URL", "")
    monkeypatch.setenv("SECATEUR_TASKS_DIR", "")
    assert (Settings().broker_url, Settings().tasks_dir) == (None, None)


def test_a_heartbeat_slower_than_the_lease_is_refused():
    with pytest.raises(ValidationError, match="heartbeat_seconds"):
        Settings(lease_seconds=10, heartbeat_seconds=10)
