"""HTTP with patience: retries what may be retried, turns problems into exceptions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from secateur.errors import ConnectionFailed, api_error

RETRIED = frozenset({429, 502, 503, 504})
MAX_PAUSE = 30.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that no proxy of the environment can reach."""


class Transport:
    """One connection pool; safe to share between threads.

    Args:
        url: The server, without `/v1`.
        api_key: Sent as a bearer token, to this server only.
        retries: Attempts after the first.
        timeout: Seconds for connecting, and between two bytes of an answer.
    """

    def __init__(self, url: str, api_key: str, *, retries: int, timeout: float) -> None:
        self.url = url
        self.retries = retries
        self.timeout = timeout
        self._http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}", "Accept": "application/json"},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
            follow_redirects=False,
            trust_env=httpx2.URL(url).host not in LOOPBACK,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 0.0,
    ) -> httpx2.Response:
        """Return the answer (2xx or 304); `patience` is how long the server may hold it back.

        `content` begins a body anew at each attempt.

        Raises:
            ApiError: the server answered with a problem.
            ConnectionFailed: it never answered.
        """
        timeout = httpx2.Timeout(self.timeout + patience, connect=min(self.timeout, 10.0))
        for attempt in range(self.retries + 1):
            is_last = attempt == self.retries
            try:
                response = self._http.request(
                    method,
                    path,
                    json=json,
                    content=content() if content else None,
                    params=params,
                    headers=headers,
                    timeout=timeout,
                )
            except httpx2.TransportError as error:
                if is_last:
                    raise self.unreachable(error) from error
                time.sleep(pause(attempt))
                continue
            if response.status_code not in RETRIED or is_last:
                break
            time.sleep(pause(attempt, response.headers.get("retry-after")))
        raise_for_problem(response)
        return response

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """Open an answer that is read piece by piece; tries once, the caller resumes.

        The server may send on to where its files are: the key does not go there.
        """
        opened = self._http.stream("GET", path, headers=headers, follow_redirects=True)
        with opened as response:
            if response.status_code >= 400:
                response.read()
            raise_for_problem(response)
            yield response

    def unreachable(self, error: Exception) -> ConnectionFailed:
        """Say which server did not answer."""
        return ConnectionFailed(
            f"{self.url} does not answer ({type(error).__name__}: {error})",
            code="UNREACHABLE",
            suggestions=(
                "is the server running? `secateur serve` starts one",
                "check SECATEUR_URL",
            ),
        )


def pause(attempt: int, retry_after: str | None = None) -> float:
    """Return the seconds to wait: what the server asks for, else exponential with full jitter."""
    if retry_after is not None and retry_after.isdecimal():
        return min(float(retry_after), MAX_PAUSE)
    return random.uniform(0.1, min(MAX_PAUSE, 0.5 * 2.0**attempt))  # noqa: S311 - no secret


def raise_for_problem(response: httpx2.Response) -> None:
    """Raise unless the answer is 2xx or 304."""
    if response.is_success or response.status_code == 304:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": f"HTTP {response.status_code} from {response.url.host}"}
    raise api_error(response.status_code, problem)
