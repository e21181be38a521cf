"""Speeds of two models against a machine whose clock and load the test makes, and against two real models."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from pruning_core.errors import HostOutOfMemory
from pruning_core.evaluate import in_turn, verify
from pruning_core.evaluate.in_turn import Compared, Load, compare
from pruning_core.evaluate.throughput import run_seconds
from tests import tiny

WORK = {"prefill": 0.05, "decode": 0.1}


@dataclass
class Machine:
    """Runs work at a pace that other programs change: a burst slows it by `slowed` for a while.

    Attributes:
        burst: Seconds that a burst lasts, on average; 0 for none.
        calm: Seconds between two bursts, on average.
        slowed: How many times slower work is within a burst.
        drift: Growth of the work's duration per second, as of a machine that grows hot.
        jitter: Relative standard deviation of every single duration.
    """

    burst: float = 0.0
    calm: float = 1.0
    slowed: float = 4.0
    drift: float = 0.0
    jitter: float = 0.01
    seed: int = 0
    time: float = 0.0
    _bursting: bool = False
    _until: float = 0.0
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._until = self._draw.expovariate(1 / self.calm)

    def run(self, factor: float) -> dict[str, float]:
        return {phase: self._work(factor * seconds) for phase, seconds in WORK.items()}

    def _work(self, left: float) -> float:
        started = self.time
        left *= max(0.1, self._draw.gauss(1, self.jitter)) * (1 + self.drift * self.time)
        while left > 1e-12:
            pace = 1 / self.slowed if self._bursting else 1.0
            done = min(left, max(0.0, self._until - self.time) * pace)
            self.time += done / pace
            left -= done
            if self.time >= self._until - 1e-12 and self.burst:
                self._bursting = not self._bursting
                mean = self.burst if self._bursting else self.calm
                self._until = self.time + self._draw.expovariate(1 / mean)
            elif not self.burst:
                self._until = self.time + 1e9
        return self.time - started


def measured(machine: Machine, factor: float, *, busy: float = 0.0) -> Compared:
    return compare(
        partial(machine.run, 1.0),
        partial(machine.run, factor),
        threads=1,
        cores=2,
        busy=lambda: busy,
        clock=lambda: machine.time,
    )


QUIET: dict[str, Callable[[int], Machine]] = {
    "quiet": lambda seed: Machine(seed=seed),
    "growing hot": lambda seed: Machine(seed=seed, drift=0.05),
}
BUSY: dict[str, Callable[[int], Machine]] = {
    "short bursts": lambda seed: Machine(seed=seed, burst=0.05, calm=0.2),
    "bursts as long as a run": lambda seed: Machine(seed=seed, burst=0.2, calm=0.6),
    "long bursts": lambda seed: Machine(seed=seed, burst=3.0, calm=3.0, slowed=8.0),
    "one long burst in the middle": lambda seed: Machine(seed=seed, burst=9.0, calm=5.0, slowed=3),
}


@pytest.mark.parametrize("name", [*QUIET, *BUSY])
def test_equal_models_are_never_called_faster(name: str) -> None:
    """Of 40 machines each: the interval of either phase holds 1, but for what 95 % allow, and never leaves 3 % of it."""
    make, missed = (QUIET | BUSY)[name], 0
    for seed in range(40):
        for ratio in measured(make(seed), 1.0).ratios.values():
            assert ratio.interval is not None
            low, high = ratio.interval
            missed += not low <= 1 <= high
            assert low < 1.03
            assert high > 1 / 1.03
    assert missed <= 8  # of 80; 4 are expected


@pytest.mark.parametrize("name", [*QUIET, *BUSY])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_twice_the_work_is_found(name: str, factor: float) -> None:
    make = (QUIET | BUSY)[name]
    for seed in range(10):
        found = measured(make(seed), factor)
        for ratio in found.ratios.values():
            assert ratio.interval is not None
            assert 0.9 * ratio.interval[0] <= 1 / factor <= 1.1 * ratio.interval[1]
            assert found.doubts or ratio.value == pytest.approx(1 / factor, rel=0.1)


@pytest.mark.parametrize("name", QUIET)
def test_a_quiet_machine_leaves_no_doubt(name: str) -> None:
    for seed in range(10):
        found = measured(QUIET[name](seed), 0.8)
        assert found.doubts == ()
        assert found.rounds >= in_turn.FEWEST_ROUNDS


def test_rounds_that_disagree_are_doubted() -> None:
    doubts = [measured(BUSY["bursts as long as a run"](seed), 1.0).doubts for seed in range(20)]
    assert sum(any("rounds disagree" in one for one in found) for found in doubts) >= 10


def test_a_loaded_machine_is_doubted_however_well_rounds_agree() -> None:
    (doubt,) = measured(Machine(), 1.0, busy=1.6).doubts
    assert "1.6 processor cores" in doubt
    assert measured(Machine(), 1.0, busy=0.9).doubts == ()


def test_slow_models_take_minutes_at_most_and_are_doubted() -> None:
    machine = Machine()
    found = compare(
        partial(machine.run, 200.0),
        partial(machine.run, 200.0),
        threads=1,
        cores=1,
        busy=lambda: 0.0,
        clock=lambda: machine.time,
    )
    assert found.rounds < in_turn.FEWEST_ROUNDS
    assert machine.time < in_turn.MOST_SECONDS + 6 * 200 * sum(WORK.values())
    assert all(ratio.interval is None for ratio in found.ratios.values())
    assert "so slow" in found.doubts[0]


def test_fast_models_take_seconds() -> None:
    machine = Machine()
    measured(machine, 1.0)
    assert machine.time < 2 * in_turn.SECONDS


def test_load_counts_what_others_do_and_not_what_we_do() -> None:
    load = Load()
    spin = "import time; end = time.monotonic() + 1\nwhile time.monotonic() < end: pass"
    other = subprocess.Popen([sys.executable, "-c", spin])
    sum(range(10_000_000))
    assert other.wait() == 0
    assert load.busy() > 0.1


def test_a_deeper_real_model_is_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_turn, "MOST_ROUNDS", in_turn.FEWEST_ROUNDS)
    models = [
        AutoModelForCausalLM.from_pretrained(
            tiny.save(tmp_path / str(layers), "llama", num_hidden_layers=layers)
        ).eval()
        for layers in (2, 12)
    ]
    tokens = tiny.tokens(1, 32)
    runs = [partial(run_seconds, model, tokens, new_tokens=4) for model in models]
    found = compare(*runs, threads=torch.get_num_threads(), busy=Load().busy)
    assert all(ratio.value < 0.6 for ratio in found.ratios.values())


def test_models_that_do_not_fit_together_are_taken_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.save(tmp_path / "dense", "llama")
    tokens = verify.probe_tokens(tiny.VOCAB, 64)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
    verify.save_file({"tokens": tokens, "logits": logits}, tmp_path / "probe")
    arguments = (str(folder), str(tmp_path / "probe"), "cpu", "timed", str(folder))
    found = verify._examine(*arguments, "apart")
    assert found["speed"]["dense"] is None
    assert found["speed"]["doubts"] == [verify.APART]
    assert found["dense_sample"] == found["sample"]
    assert verify._fits(transformers, str(folder), torch.float32, torch.device("cpu"))
    monkeypatch.setattr(verify.devices, "free_memory", lambda _device: 1000)
    assert not verify._fits(transformers, str(folder), torch.float32, torch.device("cpu"))


def test_a_machine_that_ends_the_process_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*arguments: str, **_told: Callable[..., None]) -> str:
        asked.append(arguments)
        if "apart" not in arguments:
            raise HostOutOfMemory("ended with status -9")
        return '{"speed": null}'

    monkeypatch.setattr(verify.subprocesses, "run", run)
    silent = (lambda *_told: None, lambda: None)
    assert verify._asked(("a",), Path("dense"), *silent) == {"speed": None}
    assert [one[-1] for one in asked] == ["dense", "apart"]
    with pytest.raises(HostOutOfMemory):
        verify._asked(("a",), None, *silent)
