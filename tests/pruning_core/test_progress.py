"""What watchers of a run are told: by processes of its own, within long steps, and how often."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from pruning_core.pipeline.phases import prune
from pruning_core.spec.progress import Progress
from pruning_core.system import subprocesses
from pruning_core.system.progress import Tracker
from tests import tiny
from tests.pruning_core.runs import spec

TELLING = "tests.pruning_core.telling"


def test_a_process_tells_what_it_has_done_beside_its_answer() -> None:
    told: list[tuple[int, int, str, float | None]] = []
    answer = subprocesses.run(TELLING, "0", on_progress=lambda *words: told.append(words))
    assert told == [(1, 3, "tensor", 1 / 3), (2, 3, "tensor", 2 / 3), (3, 3, "tensor", 1.0)]
    assert answer.splitlines()[-1] == "the answer"


def test_silence_of_a_process_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "LOOK_SECONDS", 0.05)
    signs: list[float] = []
    answer = subprocesses.run(TELLING, "0.5", alive=lambda: signs.append(time.monotonic()))
    assert answer.splitlines()[-1] == "the answer"
    assert len(signs) >= 3


@pytest.mark.parametrize("who", ["on_progress", "alive"])
def test_whoever_listens_can_end_a_process(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "LOOK_SECONDS", 0.05)

    def stop(*_words: object) -> None:
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        subprocesses.run(TELLING, "60", **{who: stop})
    assert time.monotonic() - begun < 50


class Seen:
    """Keeps what was told, and when."""

    def __init__(self) -> None:
        self.steps: list[Progress] = []
        self.times = [time.monotonic()]

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)
        self.times.append(time.monotonic())

    def alive(self) -> None:
        self.times.append(time.monotonic())

    @property
    def longest_silence(self) -> float:
        return max(after - before for before, after in itertools.pairwise(self.times))


def test_nothing_is_silent_for_ten_seconds(tmp_path: Path) -> None:
    """Blocks and tasks that take seconds each, in small batches, and a process that verifies."""
    folder = tiny.save(tmp_path / "m", "llama")
    calibration = {"tasks": [{"name": "python_docs", "samples": 256}], "seq_len": 128}
    asked = spec(
        method="sparsegpt",
        calibration=calibration,
        evaluation={"windows": 128, "seq_len": 128},
    )
    seen = Seen()
    begun = time.monotonic()
    prune(folder, asked, tmp_path / "out", observer=seen)
    assert time.monotonic() - begun > 3  # else nothing was slow
    assert seen.longest_silence < 10
    seconds = {one.seconds_remaining for one in seen.steps}
    assert len(seconds) > 2


def test_work_within_a_step_moves_batches_and_per_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pruning_core.system.progress.MESSAGE_SECONDS", 0.0)
    seen = Seen()
    tracker = Tracker(seen)
    tracker.plan({"pruning": 1.0})
    tracker.begin("pruning", 2)
    for _ in range(4):
        tracker.alive()
    tracker.step(1)
    for _ in range(2):
        tracker.alive()
    tracker.step(2)
    told = [(one.step, one.batches, one.percent) for one in seen.steps]
    assert told == [
        (0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 4, 0),  # nobody knows yet how many there are
        (1, 0, 50), (1, 1, 62.5), (1, 2, 75), (2, 0, 100),
    ]  # fmt: skip


def test_units_may_change_within_a_phase_and_its_time_left_is_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    seen = Seen()
    tracker = Tracker(seen)
    tracker.plan({"recovering": 10.0, "saving": 10.0})
    tracker.begin("recovering", unit="step")
    for done in (1, 2, 3):
        tracker.part(done, 4, "tensor")
    tracker.part(5, 10, "step", 0.5)
    tracker.part(10, 10, "step", 1.0)
    last = {one.unit: one for one in seen.steps}
    assert seen.steps[0].phase_seconds_remaining is None  # nobody knows how many there are
    assert (last["tensor"].step, last["tensor"].total_steps) == (3, 4)
    assert last["tensor"].phase_seconds_remaining is not None
    assert last["tensor"].percent == 0
    assert last["step"].percent == 50
    assert last["step"].seconds_remaining is not None
