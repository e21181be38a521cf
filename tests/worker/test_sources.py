"""Where models come from, and that a slow download is not taken for a stall."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pruning_core.errors import ModelInvalid, ModelNotAllowed
from pruning_core.spec.model import ModelRef
from pruning_core.system.progress import Silent, Tracker
from worker import sources


def test_a_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = ModelRef.model_validate(f"file://{tmp_path}/model")
    found = sources.fetch(
        model, roots=[tmp_path], cache_dir=tmp_path / "cache", tracker=Tracker(Silent())
    )
    assert found == sources.Source(tmp_path / "model", tmp_path, None)


def test_a_link_out_of_the_roots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "model").symlink_to(tmp_path)
    model = ModelRef.model_validate(f"file://{tmp_path}/root/model")
    with pytest.raises(ModelNotAllowed):
        sources.fetch(
            model,
            roots=[tmp_path / "root"],
            cache_dir=tmp_path / "cache",
            tracker=Tracker(Silent()),
        )


def test_a_gguf_file_is_converted(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"none")
    model = ModelRef.model_validate(f"file://{tmp_path}/model.gguf")
    with pytest.raises(ModelInvalid, match="GGUF"):
        sources.fetch(
            model, roots=[tmp_path], cache_dir=tmp_path / "cache", tracker=Tracker(Silent())
        )


def test_growth_is_told_and_silence_is_not(tmp_path: Path) -> None:
    told: list[int] = []
    with sources.growth_told(tmp_path, told.append, every=0.02):
        time.sleep(0.2)
        assert told == []
        (tmp_path / "part.incomplete").write_bytes(b"some")
        time.sleep(0.2)
        assert told == [4]
