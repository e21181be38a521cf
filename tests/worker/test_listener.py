"""What the child says becomes the state of the job, and now and then an event."""

from __future__ import annotations

import os
import time

import pytest

from pruning_core.spec.progress import Progress
from store import leases
from store.leases import Claim
from tests.worker.rig import Rig
from worker import listener
from worker.lease import Lease
from worker.listener import Listener
from worker.protocol import Progressed, encode


def heard(rig: Rig, claim: Claim, steps: int) -> None:
    """Let a listener hear so many steps of one phase."""
    reading, writing = os.pipe()
    with (
        Lease(rig.database, claim, rig.settings, claimed_at=time.monotonic()) as lease,
        os.fdopen(reading, "rb") as stdout,
    ):
        ear = Listener(stdout, rig.database, claim, lease)
        with os.fdopen(writing, "wb") as child:
            for step in range(steps):
                progress = Progress(
                    phase="verifying", step=step, total_steps=steps, unit="tensor", percent=50
                )
                child.write(encode(Progressed(progress=progress)))
        ear.join()


@pytest.mark.parametrize(("pause", "events"), [(0.0, 5), (3600.0, 1)])
def test_steps_of_one_phase_become_events_every_few_seconds(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, pause: float, events: int
) -> None:
    monkeypatch.setattr(listener, "EVENT_SECONDS", pause)
    job_id = rig.submit()
    with rig.database.write() as session:
        claim = leases.claim(session, owner="me", lease_seconds=60)
    assert claim is not None
    heard(rig, claim, 5)
    told = [event.detail for event in rig.events(job_id) if event.type == "job.progress"]
    assert [detail["step"] for detail in told] == list(range(events))
    assert told[0]["unit"] == "tensor"
    progress = rig.job(job_id).progress
    assert progress is not None
    assert progress["step"] == 4
