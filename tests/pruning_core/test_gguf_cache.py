"""A converted folder is used again only while it is as it was made, and holds what its digest names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pruning_core.convert import from_gguf
from pruning_core.system import subprocesses
from tests import gguf_files, tiny


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_files.write(tmp_path_factory.mktemp("gguf") / "m.gguf", tiny.build("llama"))


@pytest.fixture(scope="module")
def converted(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, converted while somebody writes to the file that was given."""
    given = Path(shutil.copy(file, tmp_path_factory.mktemp("given")))
    cache, run = tmp_path_factory.mktemp("cache"), subprocesses.run

    def scribbling(*arguments: Any, **named: Any) -> str:
        given.write_bytes(b"GGUF, and now something else")
        return run(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocesses, "run", scribbling)
        from_gguf.convert(given, cache)
    return cache


class Begun(Exception):
    """It is converted again."""


@pytest.fixture(autouse=True)
def telling(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: Any, **__: Any) -> None:
        raise Begun

    monkeypatch.setattr(subprocesses, "run", begin)


def test_a_whole_folder_of_the_very_bytes_is_used_again(file: Path, converted: Path) -> None:
    folder = from_gguf.convert(file, converted)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(folder))


def altered(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def half_made(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def added(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("another")


def of_no_listing(folder: Path) -> None:
    folder.with_name(f"{folder.name}.json").unlink()


def of_a_broken_listing(folder: Path) -> None:
    folder.with_name(f"{folder.name}.json").write_text("[")


@pytest.mark.parametrize(
    "damage", [altered, cut_short, half_made, added, of_no_listing, of_a_broken_listing]
)
def test_any_other_is_made_again(
    damage: Callable[[Path], None], file: Path, converted: Path, tmp_path: Path
) -> None:
    cache = shutil.copytree(converted, tmp_path / "cache")
    damage(from_gguf.convert(file, cache))
    with pytest.raises(Begun):
        from_gguf.convert(file, cache)
