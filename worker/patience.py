"""Waits for a hub that is away: asks again after growing pauses, for the time that the operator allows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from pruning_core import settings
from pruning_core.errors import DatasetAway, HubUnavailable

T = TypeVar("T")

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
TOLD_EVERY_SECONDS = 1.0

log = structlog.get_logger()


def patiently(work: Callable[[], T], *, seconds: float, waiting: Callable[[], None]) -> T:
    """Return what `work` returns, once the hub answers.

    Args:
        work: What needs the hub; goes on where it stopped when it is called again.
        seconds: No new try begins later.
        waiting: Called every second between two tries; what it raises ends the wait.

    Raises:
        HubUnavailable, DatasetAway: the hub stayed away, or is switched off here.
    """
    begun, pause = time.monotonic(), FIRST_SECONDS
    while True:
        try:
            return work()
        except (HubUnavailable, DatasetAway) as error:
            left = begun + seconds - time.monotonic()
            if settings.hub_offline():
                raise
            if left <= 0:
                raise type(error)(
                    f"{error.message} It was tried for {seconds:g} s.",
                    suggestions=error.suggestions,
                ) from error
            log.warning("hub.away", detail=error.message)
        _wait(min(left, pause * random.uniform(0.5, 1)), waiting)  # noqa: S311 - no secret
        pause = min(2 * pause, LONGEST_SECONDS)


def _wait(seconds: float, waiting: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        waiting()
        time.sleep(min(left, TOLD_EVERY_SECONDS))
