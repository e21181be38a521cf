"""Percent and time left: work is counted in tokens x blocks, so that phases of unlike cost compare."""

from __future__ import annotations

import time
from typing import Protocol

from pruning_core.spec.report import BlockReport, Phase, Progress

MIN_SECONDS = 2.0
"""Below this the rate is noise and no time left is given."""
ALIVE_SECONDS = 10.0
"""Between two signs of life within one step."""


class Observer(Protocol):
    """Whoever watches a run; raising stops it after the block in hand was stored."""

    def progress(self, progress: Progress) -> None:
        """Take note of one step."""

    def alive(self) -> None:
        """Take note that a long step is being worked on; must not raise."""


class Silent:
    """Nobody watches."""

    def progress(self, progress: Progress) -> None:
        """Do nothing."""

    def alive(self) -> None:
        """Do nothing."""


class Tracker:
    """Turns finished steps into `Progress`.

    Args:
        observer: Who is told.
        costs: Work of each phase, in any one unit; a phase that is absent costs nothing, and none ever counts for more.
    """

    def __init__(self, observer: Observer, costs: dict[str, float]) -> None:
        self._observer = observer
        self._costs = costs
        self._total = sum(costs.values()) or 1.0
        self._worked: dict[str, float] = {}
        self._free = 0.0
        self._started = time.perf_counter()
        self._phase_started = self._started
        self._phase: Phase = "resolving"
        self._key = "resolving"
        self._steps = 0
        self._told = self._started
        self.seconds: dict[str, float] = {}

    def begin(self, phase: Phase, steps: int = 0, *, key: str | None = None) -> None:
        """Enter a phase of `steps` equal steps; `key` names its cost and its seconds where the phase occurs twice."""
        self.end()
        self._phase, self._key, self._steps = phase, key or phase, steps
        self._phase_started = time.perf_counter()
        self._tell(0, None)

    def step(
        self, number: int, block: BlockReport | None = None, *, replayed: bool = False
    ) -> None:
        """Note that `number` of the phase's steps are done; a replayed step says little about the rate."""
        work = self._add(self._costs.get(self._key, 0.0) / max(self._steps, 1))
        self._free += work if replayed else 0.0
        self._tell(number, block)

    def end(self) -> None:
        """Leave the phase and note its seconds."""
        spent = time.perf_counter() - self._phase_started
        self.seconds[self._key] = self.seconds.get(self._key, 0.0) + spent
        if self._steps == 0:
            self._add(self._costs.get(self._key, 0.0))

    def alive(self) -> None:
        """Say, now and then, that work goes on within a step."""
        if time.perf_counter() - self._told >= ALIVE_SECONDS:
            self._told = time.perf_counter()
            self._observer.alive()

    @property
    def _done(self) -> float:
        return sum(self._worked.values())

    def _add(self, work: float) -> float:
        """Count work of the phase in hand, as far as it was planned, and return what counts."""
        before = self._worked.get(self._key, 0.0)
        self._worked[self._key] = min(before + work, self._costs.get(self._key, 0.0))
        return self._worked[self._key] - before

    def _tell(self, number: int, block: BlockReport | None) -> None:
        self._told = time.perf_counter()
        self._observer.progress(
            Progress(
                phase=self._phase,
                step=number,
                total_steps=self._steps,
                percent=min(100.0, round(100 * self._done / self._total, 2)),
                seconds_remaining=self._remaining(),
                block=block,
            )
        )

    def _remaining(self) -> float | None:
        elapsed, worked = time.perf_counter() - self._started, self._done - self._free
        if elapsed < MIN_SECONDS or worked <= 0:
            return None
        return round(elapsed / worked * max(self._total - self._done, 0.0), 1)
