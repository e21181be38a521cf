"""How far a run is and how long it takes: units of the phase in hand, per cent and time left of the whole.

Per cent are counted in tokens x blocks, so that phases of unlike cost compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pruning_core.spec.progress import Phase, Progress
from pruning_core.spec.report_parts.removal import BlockReport

MIN_SECONDS = 2.0
"""Below this the rate is noise and no time left is given."""
MESSAGE_SECONDS = 1.0
"""Least time between two messages, but for those on blocks and on the beginning of phases."""
ALIVE_SECONDS = 5.0
"""Between two signs of life where nothing can be counted."""
_WITHIN_STEP = 0.95
"""Most of a step that counts as done before it is."""

CountCallback = Callable[[int], None]
"""Takes how many units are done."""


class Observer(Protocol):
    """Whoever watches a run."""

    def progress(self, progress: Progress) -> None:
        """Take note of one step, or of `progress.batches` within it.

        Raising stops the run, resumably; where `batches` is not 0, the block in hand is lost.
        """

    def alive(self) -> None:
        """Take note that something is worked on that cannot be counted; must not raise."""


class Silent:
    """Nobody watches."""

    def progress(self, progress: Progress) -> None:
        """Do nothing."""

    def alive(self) -> None:
        """Do nothing."""


class Tracker:
    """Turns finished work into `Progress`, and keeps the seconds of every phase.

    Args:
        observer: Who is told.
        seconds: Spent already, by phase; it began that long ago.

    Attributes:
        seconds: Of every phase that has ended, by its key.
    """

    def __init__(self, observer: Observer, seconds: Mapping[str, float] | None = None) -> None:
        self._observer = observer
        self.seconds = dict(seconds or {})
        self._created = self._phase_began = self._told = time.perf_counter()
        self._costs: Mapping[str, float] = {}
        self._worked: dict[str, float] = {}
        self._free = 0.0
        self._planned_at = self._created
        self._phase: Phase = "resolving"
        self._key = "resolving"
        self._done = self._total = 0
        self._unit = "block"
        self._last = (0, 0, "")
        self._part_began = self._created
        self._batches = self._batches_per_step = 0

    @property
    def started_at(self) -> datetime:
        """When the first of the phases began."""
        return datetime.now(UTC) - timedelta(seconds=self._spent())

    def plan(self, costs: Mapping[str, float]) -> None:
        """Say what the phases to come cost, in any one unit; one that is absent costs nothing, none counts for more."""
        self._costs = costs
        self._planned_at = time.perf_counter()

    def begin(
        self, phase: Phase, total: int = 0, *, unit: str = "block", key: str | None = None
    ) -> None:
        """Enter a phase of `total` units; `key` names its cost and its seconds where the phase occurs twice."""
        self.end()
        self._phase, self._key = phase, key or phase
        self._part(total, unit)
        self._tell()

    def step(self, done: int, block: BlockReport | None = None, *, replayed: bool = False) -> None:
        """Note that `done` of the phase's units are done; a replayed one says little about the rate."""
        before = self._work
        self._done = done
        self._batches_per_step, self._batches = self._batches or self._batches_per_step, 0
        self._count(done / max(self._total, 1))
        self._free += self._work - before if replayed else 0.0
        self._tell_soon(block)

    def part(self, done: int, total: int, unit: str, share: float | None = None) -> None:
        """Note other units than those that the phase began with; `share` is that of the whole phase, where it is known."""
        if (total, unit) != (self._total, self._unit):
            self._part(total, unit)
        self._done = done
        if share is not None:
            self._count(share)
        self._tell_soon(None)

    def alive(self) -> None:
        """Note that one more batch, or whatever else a step is made of, is done."""
        self._batches += 1
        if self._total and self._unit == "block" and self._batches_per_step:
            within = min(_WITHIN_STEP, self._batches / self._batches_per_step)
            self._count(min(1.0, (self._done + within) / self._total))
        self._tell_soon(None)

    def waiting(self) -> None:
        """Say, now and then, that something goes on that cannot be counted."""
        if time.perf_counter() - self._told >= ALIVE_SECONDS:
            self._told = time.perf_counter()
            self._observer.alive()

    def end(self) -> None:
        """Leave the phase and note its seconds."""
        now = time.perf_counter()
        self.seconds[self._key] = self.seconds.get(self._key, 0.0) + now - self._phase_began
        self._phase_began = now
        self._count(1.0)

    def _part(self, total: int, unit: str) -> None:
        self._total, self._unit = total, unit
        self._done = self._batches = self._batches_per_step = 0
        self._part_began = time.perf_counter()

    @property
    def _work(self) -> float:
        return sum(self._worked.values())

    def _count(self, share: float) -> None:
        """Note the share of the phase that is done; it never falls."""
        done = min(1.0, share) * self._costs.get(self._key, 0.0)
        self._worked[self._key] = max(done, self._worked.get(self._key, 0.0))

    def _tell_soon(self, block: BlockReport | None) -> None:
        state = (self._done, self._total, self._unit)
        finished = self._total and self._done >= self._total and state != self._last
        due = time.perf_counter() - self._told >= MESSAGE_SECONDS
        if block is not None or finished or due:
            self._tell(block)

    def _tell(self, block: BlockReport | None = None) -> None:
        self._told = time.perf_counter()
        self._last = (self._done, self._total, self._unit)
        total = sum(self._costs.values())
        self._observer.progress(
            Progress(
                phase=self._phase,
                step=self._done,
                total_steps=self._total,
                unit=self._unit,
                batches=self._batches,
                percent=round(100 * min(1.0, self._work / total), 2) if total else 0.0,
                seconds_remaining=self._remaining(total),
                phase_seconds_remaining=self._of_part(),
                block=block,
            )
        )

    def _remaining(self, total: float) -> float | None:
        return _left(self._told - self._planned_at, self._work - self._free, total - self._work)

    def _of_part(self) -> float | None:
        if not self._total:
            return None
        return _left(self._told - self._part_began, self._done, self._total - self._done)

    def _spent(self) -> float:
        """Return the seconds since the first phase began."""
        return sum(self.seconds.values()) + time.perf_counter() - self._phase_began


def _left(seconds: float, done: float, left: float) -> float | None:
    """Return how long the rest takes at the rate so far; None until it says anything."""
    if seconds < MIN_SECONDS or done <= 0:
        return None
    return round(seconds / done * max(left, 0.0), 1)


def counting(on_count: CountCallback) -> CountCallback:
    """Return what takes the sizes of finished pieces and tells their sum."""
    total = 0

    def add(size: int) -> None:
        nonlocal total
        total += size
        on_count(total)

    return add
