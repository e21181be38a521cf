"""Decides when a child must stop. It never touches the database, so nothing can keep it from killing in time."""

from __future__ import annotations

import enum
import math
import threading
import time

import structlog

from store.settings import Settings
from worker.child import Child
from worker.lease import Lease
from worker.listener import Listener

TICK_SECONDS = 0.1
DRAIN_GRACE_SECONDS = 120
"""A drained child may finish its block; after that it is killed and the block is pruned again elsewhere."""

log = structlog.get_logger()


class Stop(enum.Enum):
    """Why a child was stopped."""

    LOST = "the lease belongs to another worker"
    EXPIRED = "the lease could not be renewed in time"
    STALLED = "no progress"
    CANCELLED = "cancelled"
    DRAINED = "the worker shuts down"


def watch(
    child: Child, lease: Lease, listener: Listener, drain: threading.Event, settings: Settings
) -> Stop | None:
    """Return when the child has ended: None where it ended by itself, else why it was stopped."""
    asked: Stop | None = None
    kill_at = math.inf
    while not child.exited(within=TICK_SECONDS):
        reason = _must_die(lease, listener, settings.stall_seconds)
        if reason is not None:
            child.kill()
            return reason
        wish = _should_stop(lease, drain)
        if wish is not None and wish is not asked:
            asked, kill_at = wish, time.monotonic() + _grace(wish, settings)
            log.info("child.asked_to_stop", pid=child.pid, reason=wish.value)
            child.terminate()
        if time.monotonic() >= kill_at:
            child.kill()
    return asked


def _must_die(lease: Lease, listener: Listener, stall_seconds: float) -> Stop | None:
    if lease.lost:
        return Stop.LOST
    if lease.expired:
        return Stop.EXPIRED
    if time.monotonic() - listener.heard_at > stall_seconds:
        return Stop.STALLED
    return None


def _should_stop(lease: Lease, drain: threading.Event) -> Stop | None:
    if lease.cancel_requested:
        return Stop.CANCELLED
    return Stop.DRAINED if drain.is_set() else None


def _grace(wish: Stop, settings: Settings) -> float:
    return settings.term_grace_seconds if wish is Stop.CANCELLED else DRAIN_GRACE_SECONDS
