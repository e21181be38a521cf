"""How much faster one model is than another: both run in turn in many short rounds, so that what else a machine does slows both.

A round is ABBA: what grows or falls steadily meanwhile cancels out of its ratio. The median over the rounds does not mind
those that a burst of other work hit in the middle.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil
from scipy.stats import quantile_test

Seconds = Mapping[str, float]
"""Of one short run, phase by phase."""
Run = Callable[[], Seconds]
FEWEST_ROUNDS = 6
"""The median of fewer has no 95 % interval."""
MOST_ROUNDS = 24
SECONDS = 6.0
"""After these no round begins beyond the fewest."""
MOST_SECONDS = 300.0
"""After these none begins at all."""
WIDEST = 1.2
"""Upper over lower end of an interval: rounds that leave more open disagree."""
SPARE_CORES = 0.25
"""So much of a core may others take from the measurement."""


@dataclass(frozen=True)
class Ratio:
    """Speed of the second model over that of the first in one phase: median over the rounds and its 95 % interval, if any."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Compared:
    """What the rounds found.

    Attributes:
        ratios: By phase.
        seconds: Of one run of either model, by phase: the median.
        rounds: How many there were.
        busy: Cores that other programs kept busy meanwhile, on average.
        doubts: Why the ratios are not to be relied on; empty where they are.
    """

    ratios: Mapping[str, Ratio]
    seconds: tuple[Seconds, Seconds]
    rounds: int
    busy: float
    doubts: tuple[str, ...]


class Load:
    """What other programs do from now on."""

    def __init__(self) -> None:
        self._started, self._others = time.monotonic(), self._now()

    def busy(self) -> float:
        """Return how many cores they kept busy since, on average."""
        spent = self._now() - self._others
        return max(0.0, spent / max(time.monotonic() - self._started, 1e-9))

    @staticmethod
    def _now() -> float:
        """Return processor seconds of this machine that were not this process's."""
        whole, mine = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = whole.idle + getattr(whole, "iowait", 0.0)
        guests = getattr(whole, "guest", 0.0) + getattr(whole, "guest_nice", 0.0)
        return float(sum(whole) - idle - guests - mine.user - mine.system)


def compare(
    first: Run,
    second: Run,
    *,
    threads: int,
    busy: Callable[[], float],
    clock: Callable[[], float] = time.perf_counter,
    cores: int | None = None,
) -> Compared:
    """Return how the second model's speed compares with the first's.

    Args:
        first: Runs one model for a short while.
        second: The other.
        threads: Cores that a run uses.
        busy: Says how many cores others kept busy, on average, since the measurement began.
        clock: Seconds; how long the measurement may take is told by it.
        cores: That the machine has.
    """
    for run in (first, second):
        run()
    rounds = [*_rounds(first, second, clock)]
    ratios = {
        phase: _ratio([_one(phase, firsts, seconds) for firsts, seconds in rounds])
        for phase in rounds[0][0][0]
    }
    others = busy()
    spare = (cores or psutil.cpu_count() or threads) - threads
    doubts = [*_disagreement(ratios, len(rounds))]
    if others > spare + SPARE_CORES:
        doubts.append(f"other programs kept {others:.1f} processor cores busy meanwhile")
    medians = (_medians(rounds, 0), _medians(rounds, 1))
    return Compared(ratios, medians, len(rounds), others, tuple(doubts))


Round = tuple[tuple[Seconds, Seconds], tuple[Seconds, Seconds]]
"""Two runs of the first model, two of the second."""


def _rounds(first: Run, second: Run, clock: Callable[[], float]) -> Iterator[Round]:
    started, done = clock(), 0
    while done < MOST_ROUNDS:
        before = first()
        both = second(), second()
        yield (before, first()), both
        done += 1
        spent = clock() - started
        if spent > (MOST_SECONDS if done < FEWEST_ROUNDS else SECONDS):
            return


def _one(phase: str, firsts: tuple[Seconds, Seconds], seconds: tuple[Seconds, Seconds]) -> float:
    """Return one round's ratio."""
    return math.sqrt(math.prod(run[phase] for run in firsts)) / math.sqrt(
        math.prod(run[phase] for run in seconds)
    )


def _ratio(ratios: list[float]) -> Ratio:
    """Return the median and its interval by ranks, which holds whatever the rounds are spread like."""
    if len(ratios) < FEWEST_ROUNDS:
        return Ratio(median(ratios), None)
    interval: Any = quantile_test(ratios, q=1, p=0.5).confidence_interval(0.95)
    return Ratio(median(ratios), (float(interval.low), float(interval.high)))


def _disagreement(ratios: Mapping[str, Ratio], rounds: int) -> Iterator[str]:
    if rounds < FEWEST_ROUNDS:
        yield f"the models are so slow that there was time for {rounds} rounds only"
    for phase, ratio in ratios.items():
        if ratio.interval is not None and ratio.interval[1] > WIDEST * ratio.interval[0]:
            low, high = ratio.interval
            yield f"rounds disagree ({phase}: {low:.3g} to {high:.3g})"


def _medians(rounds: list[Round], model: int) -> dict[str, float]:
    runs = [run for pair in rounds for run in pair[model]]
    return {phase: median(run[phase] for run in runs) for phase in runs[0]}
