"""One process at a time works in an output folder, and a result there is believed only if it is whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pruning_core.errors import FolderInUse
from pruning_core.pipeline.phases import prune
from pruning_core.spec.progress import Progress
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report
from pruning_core.system.files import alone_in
from tests import tiny

SPEC = PruneSpec.model_validate(
    {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}}
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.save(tmp_path_factory.mktemp("dense") / "llama", "llama")
    (folder / "LICENSE").write_text("terms")
    return folder


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("out")
    return out, prune(model, SPEC, out)


class Begun(Exception):
    """The run does not believe the result that is there, and begins."""


class Stopper:
    def progress(self, progress: Progress) -> None:
        if progress.phase != "preparing":
            raise Begun

    def alive(self) -> None:
        """Nothing."""


def test_a_second_run_is_refused_while_the_first_is_at_work(model: Path, tmp_path: Path) -> None:
    begun, over = threading.Event(), threading.Event()

    def hold() -> None:
        with alone_in(tmp_path / "out"):
            begun.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        with pytest.raises(FolderInUse, match="name another folder") as caught:
            prune(model, SPEC, tmp_path / "out", observer=Stopper())
    finally:
        over.set()
        thread.join()
    assert caught.value.code == "FOLDER_IN_USE"
    assert os.listdir(tmp_path / "out") == [".lock"]
    with pytest.raises(Begun):
        prune(model, SPEC, tmp_path / "out", observer=Stopper())


def test_the_lock_of_a_process_that_was_killed_is_none(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with alone_in(tmp_path):
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    with alone_in(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_a_whole_result_is_returned_as_it_is(model: Path, finished: tuple[Path, Report]) -> None:
    out, report = finished
    assert prune(model, SPEC, out, observer=Stopper()) == report


def altered(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def added(path: Path) -> None:
    path.with_name("adapter_config.json").write_text("{}")


def none_left(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("damage", [altered, cut_short, Path.unlink, added, none_left])
@pytest.mark.parametrize("name", ["model.safetensors", "LICENSE"])
def test_a_damaged_result_is_made_again(
    name: str,
    damage: Callable[[Path], None],
    model: Path,
    finished: tuple[Path, Report],
    tmp_path: Path,
) -> None:
    out, _ = finished
    for path in out.rglob("*"):
        copy = tmp_path / "out" / path.relative_to(out)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            copy.write_bytes(path.read_bytes())
    damage(tmp_path / "out" / "checkpoint" / name)
    with pytest.raises(Begun):
        prune(model, SPEC, tmp_path / "out", observer=Stopper())
