"""A private view holds the files that were there when it was made, and nothing from outside the root."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pruning_core.checkpoints import private_view
from pruning_core.checkpoints.private_view import view
from pruning_core.errors import ModelInvalid, ModelNotAllowed
from pruning_core.pipeline.phases import prune
from pruning_core.spec.progress import Progress
from pruning_core.spec.prune import PruneSpec
from tests import tiny

SECRET = "sk-of-another"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "model").mkdir(parents=True)
    (path / "model" / "config.json").write_text("{}")
    return path


def names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def to_file(path: Path, secret: Path) -> None:
    path.unlink()
    path.symlink_to(secret)


def to_new_file(path: Path, secret: Path) -> None:
    path.unlink()
    path.write_bytes(secret.read_bytes())


def folder_to_link(path: Path, secret: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    elsewhere = secret.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / path.name).write_bytes(secret.read_bytes())
    path.parent.symlink_to(elsewhere)


@pytest.mark.parametrize("swap", [to_file, to_new_file, folder_to_link])
def test_what_is_swapped_later_is_never_read(
    swap: Callable[[Path, Path], None], root: Path, secret: Path, tmp_path: Path
) -> None:
    with view(root / "model", tmp_path / "views", root=root) as folder:
        assert folder.name == "model"
        swap(root / "model" / "config.json", secret)
        assert (folder / "config.json").read_text() == "{}"
    assert not (tmp_path / "views").exists()


def test_what_is_swapped_while_the_view_is_made_is_never_read(
    root: Path, secret: Path, tmp_path: Path
) -> None:
    file, spare, link = (root / "model" / name for name in ("config.json", ".spare", ".link"))
    over = threading.Event()

    def swapping() -> None:
        while not over.is_set():
            link.symlink_to(secret)
            link.replace(file)
            spare.write_text("{}")
            spare.replace(file)

    thread = threading.Thread(target=swapping)
    thread.start()
    refused = 0
    try:
        for _ in range(300):
            try:
                with view(root / "model", tmp_path / "views", root=root) as folder:
                    assert (folder / "config.json").read_text() != SECRET
            except ModelNotAllowed:
                refused += 1
    finally:
        over.set()
        thread.join()
    assert refused


def test_links_below_the_root_work_as_a_hub_cache_has_them(root: Path, tmp_path: Path) -> None:
    (root / "blobs").mkdir()
    (root / "blobs" / "abc").write_text('{"from": "blob"}')
    (root / "model" / "tokenizer.json").symlink_to("../blobs/abc")
    (root / "model" / "absolute.json").symlink_to(root / "blobs" / "abc")
    (tmp_path / "alias").symlink_to(root)
    for way in (root, tmp_path / "alias"):
        with view(way / "model", tmp_path / "views", root=way) as folder:
            assert names(folder) == ["absolute.json", "config.json", "tokenizer.json"]
            assert json.loads((folder / "tokenizer.json").read_text()) == {"from": "blob"}


def outward(model: Path, secret: Path) -> None:
    (model / "LICENSE").symlink_to(secret)


def outward_in_steps(model: Path, secret: Path) -> None:
    (model / "step").symlink_to(secret)
    (model / "LICENSE").symlink_to("step")


def outward_folder(model: Path, secret: Path) -> None:
    (model / private_view.CHAT_TEMPLATES).symlink_to(secret.parent)


def outward_in_folder(model: Path, secret: Path) -> None:
    (model / private_view.CHAT_TEMPLATES).mkdir()
    (model / private_view.CHAT_TEMPLATES / "tool.jinja").symlink_to(secret)


def loop(model: Path, secret: Path) -> None:
    (model / "LICENSE").symlink_to("LICENSE")


@pytest.mark.parametrize(
    "plant", [outward, outward_in_steps, outward_folder, outward_in_folder, loop]
)
def test_what_leads_out_of_the_root_is_refused(
    plant: Callable[[Path, Path], None], root: Path, secret: Path, tmp_path: Path
) -> None:
    plant(root / "model", secret)
    with (
        pytest.raises(ModelNotAllowed),
        view(root / "model", tmp_path / "views", root=root),
    ):
        pass
    assert not (tmp_path / "views").exists()


def test_what_is_no_file_of_the_model_is_left_out(root: Path, tmp_path: Path) -> None:
    model = root / "model"
    os.mkfifo(model / "LICENSE")
    (model / "null").symlink_to("/dev/null")
    (model / ".token").write_text("hidden")
    (model / "gone").symlink_to("nowhere")
    (model / "original").mkdir()
    (model / "original" / "model.safetensors").write_text("a second time")
    with suppress(OSError), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(model / "socket"))
    (model / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text("{}")
    with view(model, tmp_path / "views") as folder:
        assert names(folder) == ["1_Pooling/config.json", "config.json", "modules.json"]


def test_all_parts_of_a_split_file_are_there_under_the_name_that_was_given(
    root: Path, tmp_path: Path
) -> None:
    (root / "blobs").mkdir()
    for part in (1, 2):
        (root / "blobs" / str(part)).write_text(f"part {part}")
        (root / f"m-0000{part}-of-00002.gguf").symlink_to(root / "blobs" / str(part))
    with view(root / "m-00001-of-00002.gguf", tmp_path / "views", root=root) as file:
        assert file.read_text() == "part 1"
        assert file.with_name("m-00002-of-00002.gguf").read_text() == "part 2"


@pytest.mark.parametrize(
    "path", ["..", "../..", "/etc", ".hidden", "a/b", 7, None, ["x"], {"a": 1}]
)
def test_parts_of_an_embedder_lie_in_the_folder(path: Any, root: Path, tmp_path: Path) -> None:
    (root / "model" / "modules.json").write_text(json.dumps([{"path": path}]))
    with view(root / "model", tmp_path / "views", root=root) as folder:
        assert names(folder) == ["config.json", "modules.json"]


def test_a_folder_of_countless_files_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_view, "MAX_FILES", 0)
    with pytest.raises(ModelInvalid, match="1 files"), view(root / "model", tmp_path / "views"):
        pass


class Swapper:
    """Puts links in the place of all files of the model as soon as the run begins."""

    def __init__(self, model: Path, secret: Path) -> None:
        self._model = model
        self._secret = secret

    def progress(self, _: Progress) -> None:
        for path in self._model.iterdir():
            if not path.is_symlink():
                to_file(path, self._secret)

    def alive(self) -> None:
        """Nothing."""


def test_files_swapped_during_a_run_do_not_reach_its_result(root: Path, secret: Path) -> None:
    model = tiny.save(root / "llama", "llama")
    (model / "LICENSE").write_text("terms")
    spec = PruneSpec.model_validate(
        {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}}
    )
    report = prune(model, spec, root / "out", observer=Swapper(model, secret), root=root)
    result = root / "out" / "checkpoint"
    assert (model / "LICENSE").read_text() == SECRET
    assert {"LICENSE", "tokenizer.json", "generation_config.json"} <= {
        entry.path for entry in report.files
    }
    assert (result / "LICENSE").read_text() == "terms"
    assert all(SECRET.encode() not in path.read_bytes() for path in result.iterdir())
    assert sorted(os.listdir(root / "out")) == [
        ".lock", "checkpoint", "report.html", "report.json",
    ]  # fmt: skip
