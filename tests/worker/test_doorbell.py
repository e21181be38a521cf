"""The broker: bells that are doubled, forged or lost, and a Redis that is flushed, frozen, stopped or never there."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from store.broker import TICK, Doorbell, celery_app
from tests import servers
from tests.worker.rig import Rig, rig, until

QUEUE = "secateur"


@pytest.fixture
def bell_rig(
    postgres_database_url: str, redis_server: servers.RedisServer, tmp_path: Path
) -> Iterator[Rig]:
    """Postgres and Redis; nothing but a bell (or the first look) starts a job."""
    with rig(postgres_database_url, tmp_path) as made:
        made.configure(broker_url=redis_server.url, poll_seconds=60.0)
        yield made


def ring(rig: Rig, job_id: str, times: int = 1) -> None:
    bell = Doorbell(rig.settings)
    for _ in range(times):
        bell.ring(job_id)
    until(bell._bells.empty)
    time.sleep(0.1)
    bell.close()


def ready(rig: Rig) -> None:
    """Wait until Celery listens and the slot sleeps."""
    until(lambda: "doorbell.connected" in rig.log())
    time.sleep(0.3)


def test_a_bell_starts_the_job(bell_rig: Rig) -> None:
    worker = bell_rig.worker(bell_rig.child())
    ready(bell_rig)
    job_id = bell_rig.submit()
    time.sleep(1)
    assert bell_rig.status(job_id) == "queued"
    ring(bell_rig, job_id)
    bell_rig.wait(job_id, "succeeded", seconds=10)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=15) == 0


def test_doubled_and_forged_bells_change_nothing(
    bell_rig: Rig, redis_server: servers.RedisServer
) -> None:
    worker = bell_rig.worker(bell_rig.child())
    ready(bell_rig)
    job_id = bell_rig.submit()
    ring(bell_rig, job_id, times=200)
    app = celery_app(bell_rig.settings, socket_timeout=1)
    app.send_task(TICK, args=["job_forged"])
    app.send_task(TICK, args=[{"a": 1}, 2], kwargs={"b": None})
    app.send_task("celery.shutdown_everything")
    app.close()
    with redis.Redis.from_url(redis_server.url) as client:
        (key,) = [key for key in [f"secateur:dev:{QUEUE}"] if key]
        client.lpush(key, b"not json", b"[]", b'{"body": "!", "headers": {}, "properties": {}}')
    bell_rig.wait(job_id, "succeeded", seconds=20)
    bell_rig.assert_one_result(job_id)
    assert bell_rig.types(job_id) == ["job.queued", "job.started", "job.succeeded"]
    last = bell_rig.submit()
    until(lambda: ring(bell_rig, last) or bell_rig.status(last) == "succeeded", seconds=30)
    assert worker.poll() is None


def test_redis_that_is_not_there_is_not_missed(
    bell_rig: Rig, redis_server: servers.RedisServer
) -> None:
    redis_server.stop()
    bell_rig.configure(poll_seconds=0.3)
    worker = bell_rig.worker(bell_rig.child())
    until(lambda: "worker.started" in bell_rig.log())
    job_id = bell_rig.submit()
    bell_rig.wait(job_id, "succeeded", seconds=10)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == 0


def test_bells_are_heard_again_when_redis_is_back(
    bell_rig: Rig, redis_server: servers.RedisServer
) -> None:
    redis_server.stop()
    bell_rig.worker(bell_rig.child())
    until(lambda: "worker.started" in bell_rig.log())
    redis_server.start()
    job_id = bell_rig.submit()
    until(lambda: ring(bell_rig, job_id) or bell_rig.status(job_id) == "succeeded", seconds=40)


@pytest.mark.parametrize("fault", ["stop", "flush", "pause"])
def test_redis_lost_in_mid_job(
    bell_rig: Rig, redis_server: servers.RedisServer, fault: str
) -> None:
    worker = bell_rig.worker(bell_rig.child(blocks=10, seconds=0.3))
    ready(bell_rig)
    job_id = bell_rig.submit()
    ring(bell_rig, job_id)
    bell_rig.wait_block(job_id, 1)
    getattr(redis_server, fault)()
    job = bell_rig.wait(job_id, "succeeded", seconds=20)
    assert job.attempt == 1
    bell_rig.assert_one_result(job_id)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=25) == 0
    if fault == "pause":
        redis_server.resume()


def test_the_reconciler_rings_for_jobs_whose_bell_was_lost(bell_rig: Rig) -> None:
    bell_rig.worker(bell_rig.child())
    ready(bell_rig)
    job_id = bell_rig.submit()
    bell_rig.reconciler()
    bell_rig.wait(job_id, "succeeded", seconds=15)
