"""The broker: bells that are doubled, forged or lost, and a Redis that is flushed, frozen, stopped or never there."""

from __future__ import annotations

import base64
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from store.broker import TICK, Doorbell, celery_app
from store.settings import Settings
from tests import servers
from tests.worker.rig import Rig, rig, until
from worker.doorbell import DoorbellListener

QUEUE = "secateur:dev:secateur"


def message(body: object = ((), {}, {}), **changes: object) -> dict[str, object]:
    """Return a bell as Celery puts it into Redis, with changes."""
    delivery = {"exchange": "", "routing_key": "secateur"}
    bell = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": TICK, "id": "1"},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": delivery,
            "delivery_tag": "1",
            "delivery_mode": 2,
        },
    }
    return {**bell, **changes}


def headers(**changes: object) -> dict[str, object]:
    return message(headers={"lang": "py", "task": TICK, "id": "1", **changes})


NO_BELLS = {
    "not JSON": b"not json",
    "not UTF-8": b"\xff\xfe\x00",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "too deep": b"[" * 100_000,
    "no properties": json.dumps({"body": "!", "headers": {}}).encode(),
    "no delivery tag": json.dumps(message(properties={})).encode(),
    "no base64": json.dumps({**message(), "body": "abc"}).encode(),
    "another encoding": json.dumps(
        message(properties={"delivery_tag": "1", "body_encoding": "rot13"})
    ).encode(),
    "headers that are a list": json.dumps(message(headers=[1])).encode(),
    "headers that are a text": json.dumps(message(headers="task")).encode(),
    "no headers": json.dumps(message(headers=None)).encode(),
    "a task that is a list": json.dumps(headers(task=[TICK])).encode(),
    "another task": json.dumps(headers(task="celery.shutdown")).encode(),
    "another compression": json.dumps(headers(compression="bomb")).encode(),
}
ODD_BELLS = {
    "a time limit that is a text": headers(timelimit="x"),
    "a time limit that is a number": headers(timelimit=7),
    "times that are none": headers(eta="x", expires=[]),
    "retries": headers(retries="many"),
    "a body of another form": message(body=7),
    "pickle": {**message(), "content-type": "application/x-python-serialize"},
    "no content type": {**message(), "content-type": None},
}


class Heard(NamedTuple):
    """A listener, what it wakes, and the Redis that it reads."""

    listener: DoorbellListener
    woken: threading.Event
    client: redis.Redis


@pytest.fixture(scope="module")
def one_listener() -> Iterator[Heard]:
    woken = threading.Event()
    try:
        own = servers.redis_own()
        server = own.__enter__()
    except servers.ServerUnavailableError as error:
        pytest.skip(f"no Redis of its own: {error}")
    listener = DoorbellListener(Settings(broker_url=server.url), wake=woken.set)
    listener.start()
    with redis.Redis.from_url(server.url) as client:
        yield Heard(listener, woken, client)
    listener.stop()
    own.__exit__(None, None, None)


@pytest.fixture
def heard(one_listener: Heard) -> Heard:
    one_listener.woken.clear()
    one_listener.listener.dropped = 0
    return one_listener


@pytest.mark.parametrize("poison", NO_BELLS.values(), ids=NO_BELLS)
def test_what_is_no_bell_is_dropped_and_counted(heard: Heard, poison: bytes) -> None:
    listener, woken, client = heard
    client.lpush(QUEUE, poison, poison, poison)
    until(lambda: listener.dropped == 3, seconds=3)
    assert not woken.is_set()
    client.lpush(QUEUE, json.dumps(message()).encode())
    assert woken.wait(3)
    assert not client.exists(QUEUE, "secateur:dev:unacked")


@pytest.mark.parametrize("odd", ODD_BELLS.values(), ids=ODD_BELLS)
def test_nothing_but_its_task_is_read_of_a_bell(heard: Heard, odd: dict[str, object]) -> None:
    listener, woken, client = heard
    client.lpush(QUEUE, json.dumps(odd).encode())
    assert woken.wait(3)
    assert listener.dropped == 0
    assert not client.exists(QUEUE, "secateur:dev:unacked")


def test_what_an_earlier_worker_left_unread_does_no_harm(heard: Heard) -> None:
    _, woken, client = heard
    client.hset("secateur:dev:unacked", "1", b"no message")
    client.zadd("secateur:dev:unacked_index", {"1": 1})
    for _ in range(3):
        client.lpush(QUEUE, json.dumps(message()).encode())
        assert woken.wait(3)
        woken.clear()


@pytest.fixture
def bell_rig(
    postgres_database_url: str,
    redis_server: servers.RedisServer,
    tmp_path: Path,
    runner: list[str],
) -> Iterator[Rig]:
    """Postgres and Redis; nothing but a bell (or the first look) starts a job."""
    with rig(postgres_database_url, tmp_path, runner) as made:
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
        client.lpush(QUEUE, *NO_BELLS.values(), json.dumps(headers(timelimit="x")).encode())
    bell_rig.wait(job_id, "succeeded", seconds=20)
    bell_rig.assert_one_result(job_id)
    assert bell_rig.types(job_id) == ["job.queued", "job.started", "job.succeeded"]
    last = bell_rig.submit()
    until(lambda: ring(bell_rig, last) or bell_rig.status(last) == "succeeded", seconds=30)
    assert worker.poll() is None
    assert f'"dropped": {len(NO_BELLS) + 1}' in bell_rig.log()
    assert bell_rig.log().count("doorbell.connected") == 1


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
