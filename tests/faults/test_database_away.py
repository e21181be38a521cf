"""A database that is locked, cut off, or hangs up at the worst moment."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest

from tests.faults.proxy import Proxy
from tests.worker.rig import Rig, alive, until

SLOW = {"blocks": 8, "seconds": 0.3}


def test_a_child_is_killed_before_its_lease_could_lapse(proxied_rig: Rig, proxy: Proxy) -> None:
    rig = proxied_rig
    job_id = rig.submit()
    worker = rig.worker(rig.child(blocks=40, seconds=0.2, until=1))
    rig.wait_block(job_id, 2)
    child = rig.child_pid(worker)
    proxy.close()
    cut = time.monotonic()
    until(lambda: not alive(child), seconds=5)
    assert time.monotonic() - cut < rig.settings.lease_seconds
    proxy.open()
    until(lambda: rig.job(job_id).epoch == 2, seconds=15)
    assert worker.poll() is None
    rig.wait(job_id, "succeeded")
    blocks = [block for _, block in rig.begun()]
    assert len(blocks) - len(set(blocks)) <= 1
    rig.assert_one_result(job_id)


def test_a_locked_sqlite_kills_the_child_and_not_the_job(rig: Rig) -> None:
    job_id = rig.submit()
    worker = rig.worker(rig.child(blocks=20, seconds=0.2))
    rig.wait_block(job_id, 2)
    child = rig.child_pid(worker)
    with closing(sqlite3.connect(rig.folder / "secateur.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked = time.monotonic()
        until(lambda: not alive(child), seconds=5)
        assert time.monotonic() - locked < rig.settings.lease_seconds + 0.2
        other.execute("ROLLBACK")
    rig.wait(job_id, "succeeded")
    rig.assert_one_result(job_id)


def test_a_short_lock_costs_nothing(rig: Rig) -> None:
    job_id = rig.submit()
    rig.worker(rig.child(**SLOW))
    rig.wait_block(job_id, 2)
    with closing(sqlite3.connect(rig.folder / "secateur.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(1)
        other.execute("ROLLBACK")
    job = rig.wait(job_id, "succeeded")
    assert job.attempt == 1
    assert rig.told(job_id) == list(range(8))


def test_cut_connections_cost_nothing(proxied_rig: Rig, proxy: Proxy) -> None:
    rig = proxied_rig
    job_id = rig.submit()
    rig.worker(rig.child(**SLOW))
    for block in (1, 3, 5):
        rig.wait_block(job_id, block)
        proxy.cut()
    job = rig.wait(job_id, "succeeded")
    assert job.attempt == 1
    assert sorted(set(rig.told(job_id))) == list(range(8))
    rig.assert_one_result(job_id)


@pytest.mark.parametrize("question", [b"INSERT INTO artifacts", b"UPDATE jobs"])
def test_the_reply_to_a_commit_is_lost(proxied_rig: Rig, proxy: Proxy, question: bytes) -> None:
    """Neither a claim nor a success that was committed unheard is done twice, and its files stay."""
    rig = proxied_rig
    job_id = rig.submit()
    proxy.swallow_reply(to=b"COMMIT", after=question)
    rig.worker(rig.child(**SLOW))
    rig.wait(job_id, "succeeded")
    assert proxy.cuts == 1
    time.sleep(1)
    rig.assert_one_result(job_id)


def test_a_worker_without_its_database_waits_for_it(proxied_rig: Rig, proxy: Proxy) -> None:
    rig = proxied_rig
    proxy.close()
    job_id = rig.submit()
    rig.worker(rig.child())
    until(lambda: "claim.failed" in rig.log())
    proxy.open()
    rig.wait(job_id, "succeeded")
