"""A hub that is away is waited for, with growing pauses, no longer than allowed, and not against a wish to stop."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from pruning_core.errors import (
    DatasetAway,
    DatasetUnreachable,
    HubUnavailable,
    ModelNotFound,
    PruningError,
)
from worker import patience
from worker.patience import patiently


class Stopped(Exception):
    pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(patience, "TOLD_EVERY_SECONDS", 0.01)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


class Away:
    """Fails so many times, then answers."""

    def __init__(self, times: float, error: PruningError) -> None:
        self.times, self.error = times, error
        self.tried: list[float] = []

    def __call__(self) -> str:
        self.tried.append(time.monotonic())
        if len(self.tried) <= self.times:
            raise self.error
        return "answer"


@pytest.mark.parametrize("error", [HubUnavailable("away"), DatasetAway("away")])
def test_it_goes_on_when_the_hub_is_back(error: PruningError) -> None:
    work, told = Away(4, error), itertools.count()
    assert patiently(work, seconds=60, waiting=lambda: next(told) and None) == "answer"
    pauses = [after - before for before, after in itertools.pairwise(work.tried)]
    assert len(pauses) == 4
    assert all(
        least <= pause for least, pause in zip((0.01, 0.02, 0.04, 0.08), pauses, strict=True)
    )
    assert next(told) > 4


@pytest.mark.parametrize("error", [HubUnavailable("Away."), DatasetAway("Away.")])
def test_in_the_end_it_says_so(error: PruningError) -> None:
    work = Away(float("inf"), error)
    with pytest.raises(type(error), match=r"Away\. It was tried for 0\.2 s") as caught:
        patiently(work, seconds=0.2, waiting=lambda: None)
    assert caught.value.code == error.code
    assert len(work.tried) > 2


@pytest.mark.parametrize(
    "error", [ModelNotFound("none"), DatasetUnreachable("gated"), ValueError("defect")]
)
def test_what_no_waiting_mends_ends_at_once(error: Any) -> None:
    work = Away(1, error)
    with pytest.raises(type(error)):
        patiently(work, seconds=60, waiting=lambda: None)
    assert len(work.tried) == 1


def test_a_hub_that_is_switched_off_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = Away(1, HubUnavailable("off"))
    with pytest.raises(HubUnavailable):
        patiently(work, seconds=60, waiting=lambda: None)
    assert len(work.tried) == 1


def test_a_wish_to_stop_ends_the_longest_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_SECONDS", 600)
    told = itertools.count()

    def waiting() -> None:
        if next(told) == 3:
            raise Stopped

    started = time.monotonic()
    with pytest.raises(Stopped):
        patiently(Away(1, HubUnavailable("away")), seconds=3600, waiting=waiting)
    assert time.monotonic() - started < 5
