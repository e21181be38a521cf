"""Whoever asks about the hub waits no longer than the deadline, and holds up nobody else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from api.hub_calls import HubCalls
from pruning_core.errors import HubUnavailable, ModelNotFound
from tests.worker.rig import until


def refused() -> None:
    raise ModelNotFound("org/none does not exist on the hub")


def test_what_is_returned_or_raised_arrives() -> None:
    calls = HubCalls()
    assert asyncio.run(calls.run(lambda: 7)) == 7
    assert calls.within(5, lambda: 7) == 7
    with pytest.raises(ModelNotFound):
        asyncio.run(calls.run(refused))
    with pytest.raises(ModelNotFound):
        calls.within(5, refused)


@pytest.mark.parametrize("wait", ["run", "within"])
def test_a_call_that_never_ends_is_given_up_and_counts_until_it_ends(wait: str) -> None:
    over = threading.Event()
    calls = HubCalls(most=1, seconds=0.1)

    def ask(call: Callable[[], object]) -> object:
        return asyncio.run(calls.run(call)) if wait == "run" else calls.within(0.1, call)

    started = time.monotonic()
    with pytest.raises(HubUnavailable, match=r"within 0\.1 s"):
        ask(over.wait)
    with pytest.raises(HubUnavailable, match="too many"):
        ask(over.wait)
    assert time.monotonic() - started < 5
    over.set()
    until(lambda: answered(calls))


def answered(calls: HubCalls) -> bool:
    try:
        return calls.within(5, lambda: True)
    except HubUnavailable:
        return False
