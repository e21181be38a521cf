"""What a run leaves in its folder is either taken over by the next one, or known to be made anew."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from pruning_core.pipeline.phases import prune
from pruning_core.spec.progress import Progress
from pruning_core.system.run_folder import WORK, resumable, take_over
from tests.pruning_core.runs import LAST, Watcher, spec, tokens

MADE_ANEW = (
    ".lock",
    "*.tmp",
    "*.tmp/*",
    "source/*",
    "renamed/*",
    "work/checkpoint/*",
    "work/linked/*",
    "work/companions/*",
    "work/outside.safetensors",
    "work/probe.safetensors",
    "work/rounded/*",
    "work/*.gguf",
)
"""Each is quickly made of what is taken over. A file that no later run shall miss is none of them: see `run_folder`."""
DECIDES: dict[str, Any] = {
    "method": {"name": "crepe", "search": {"name": "hill_climb", "evaluations": 2, "windows": 2}},
    "allocation": "owl",
}
EVERYTHING: dict[str, Any] = {
    **DECIDES,
    "calibration": {"tasks": [{"name": "self", "samples": 8}], "seq_len": 16},
    "recovery": {"steps": 2, "seq_len": 16, "batch": 2},
}
UNITS: dict[str, Any] = {"method": "flap", "sparsity": 0.2}


class Looker(Watcher):
    """Notes every file that is ever there, and every one that a run would take over."""

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        super().__init__(stop_after)
        self._folder = folder
        self.files: set[str] = set()
        self.resumable: set[str] = set()

    def progress(self, progress: Progress) -> None:
        self.look()
        super().progress(progress)

    def look(self) -> None:
        self.files |= {self._name(path) for path in self._folder.rglob("*") if path.is_file()}
        self.resumable |= {self._name(path) for path in resumable(self._folder)}

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def is_made_anew(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in MADE_ANEW)


def check(looker: Looker, *expected: str) -> None:
    looker.look()
    forgotten = {name for name in looker.files - looker.resumable if not is_made_anew(name)}
    assert forgotten == set()
    assert not {name for name in looker.resumable if is_made_anew(name)}
    for pattern in expected:
        assert any(fnmatch(name, pattern) for name in looker.resumable), pattern


@pytest.mark.full
def test_no_file_of_a_whole_run_is_forgotten(dense: Callable[[str], Path], tmp_path: Path) -> None:
    looker = Looker(tmp_path)
    prune(dense("llama"), spec(**EVERYTHING), tmp_path, observer=looker)
    check(
        looker,
        "self-*.safetensors",
        "work/decided.json",
        "work/ledger.json",
        "work/block-00001.safetensors",
        "work/recovery/recovery-tokens.safetensors",
        "work/recovery/recovered/*",
        "work/recovery/recovered.json",
        "checkpoint/*",
        "report.json",
        "report.html",
    )


def test_no_file_of_a_run_that_removes_units_is_forgotten(
    dense: Callable[[str], Path], tmp_path: Path
) -> None:
    looker = Looker(tmp_path, stop_after=LAST)
    with pytest.raises(KeyboardInterrupt):
        prune(dense("llama"), spec(**UNITS), tmp_path, tokens=tokens(), observer=looker)
    check(looker, "work/units.safetensors", "work/ledger.json", "work/block-00000.safetensors")


@pytest.mark.parametrize("fields", [DECIDES, UNITS], ids=["weights", "units"])
def test_a_run_goes_on_in_another_folder_as_in_its_own(
    dense: Callable[[str], Path], tmp_path: Path, fields: dict[str, Any]
) -> None:
    """Whatever is forgotten is worked out again, which the phases tell."""
    own, other = tmp_path / "own", tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        prune(dense("llama"), spec(**fields), own, tokens=tokens(), observer=Watcher(0))
    assert take_over(own, other)
    seen = []
    for folder in (own, other):
        watcher = Watcher(LAST)
        with pytest.raises(KeyboardInterrupt):
            prune(dense("llama"), spec(**fields), folder, tokens=tokens(), observer=watcher)
        phases = list(dict.fromkeys(progress.phase for progress in watcher.seen))
        blocks = {path.name: path.read_bytes() for path in (folder / WORK).glob("block-*")}
        seen.append((phases, watcher.pruned_blocks(), blocks))
    assert seen[0] == seen[1]
    assert not {"searching", "allocating"} & set(seen[0][0])


def test_nothing_is_taken_over_of_a_folder_without_results(tmp_path: Path) -> None:
    (tmp_path / "own" / WORK).mkdir(parents=True)
    (tmp_path / "own" / WORK / "block-00000.safetensors").write_bytes(b"no ledger vouches for it")
    assert not take_over(tmp_path / "own", tmp_path / "other")
    assert not (tmp_path / "other").exists()
