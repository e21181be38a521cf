from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable

import redis

from store.broker import TICK, Doorbell, celery_app
from store.settings import Settings
from tests.servers import RedisServer


def settings(url: str | None) -> Settings:
    return Settings(broker_url=url, environment=f"test-{secrets.token_hex(4)}")


def messages(url: str, using: Settings) -> list[list[str]]:
    with redis.Redis.from_url(url) as client:
        found = client.lrange(f"secateur:{using.environment}:secateur", 0, -1)
    bodies = [json.loads(message) for message in found]
    assert {body["headers"]["task"] for body in bodies} <= {TICK}
    return [body["headers"]["argsrepr"] for body in bodies]


def wait_for(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_bells_reach_redis_below_the_environments_prefix(redis_url: str):
    using = settings(redis_url)
    bell = Doorbell(using)
    bell.ring("job_1")
    wait_for(lambda: messages(redis_url, using) == ["['job_1']"])
    bell.close()
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys(f"secateur:{using.environment}:*")
        assert keys
        client.delete(*keys)


def test_without_a_broker_nothing_happens():
    bell = Doorbell(settings(None))
    bell.ring("job_1")
    bell.close()


def test_a_frozen_redis_blocks_nobody(redis_server: RedisServer):
    bell = Doorbell(settings(redis_server.url))
    redis_server.pause()
    try:
        began = time.monotonic()
        for number in range(5000):
            bell.ring(f"job_{number}")
        assert time.monotonic() - began < 1
        bell.close()
        assert time.monotonic() - began < 6
    finally:
        redis_server.resume()


def test_ringing_goes_on_when_redis_is_back(redis_server: RedisServer):
    using = settings(redis_server.url)
    bell = Doorbell(using)
    bell.ring("job_1")
    wait_for(lambda: messages(redis_server.url, using) == ["['job_1']"])
    redis_server.stop()
    bell.ring("job_2")
    time.sleep(1)
    redis_server.start()

    def rings() -> bool:
        bell.ring("job_3")
        return "['job_3']" in messages(redis_server.url, using)

    wait_for(rings)
    bell.close()


def test_nothing_is_pickled_or_kept():
    app = celery_app(settings("redis://127.0.0.1:1/0"), socket_timeout=1)
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.result_backend is None
    assert app.conf.broker_transport_options["socket_timeout"] == 1


def test_the_store_needs_no_torch():
    """The front end imports the store and must start in half a second, without CUDA."""
    code = (
        "import sys, store.leases, store.jobs, store.broker, store.migrate\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
