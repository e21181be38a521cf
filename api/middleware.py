"""What surrounds every request: its id, its log line, a bound on its body, an answer to any crash."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from api.problems import Problem, problem_response

log = structlog.get_logger()

NO_PAGE = "default-src 'none'; frame-ancestors 'none'; sandbox"
"""The policy of every answer that has none of its own: whatever a browser takes it for, it does nothing."""
MAX_TARGET, MAX_HEADERS = 32_768, 65_536
"""Bytes; the longest query that a list takes has some 28,000."""
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._\-]{1,128}$")
_TRACE = re.compile(r"^[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")


class RequestContext:
    """Names the request, adds the headers that every answer carries, logs how it ended."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.request_id = _request_id(request.headers)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request.state.request_id
                headers.setdefault("Cache-Control", "private, no-cache")
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Content-Security-Policy", NO_PAGE)
            await send(message)

        with structlog.contextvars.bound_contextvars(**_log_fields(request)):
            started = time.perf_counter()
            try:
                await self.app(scope, receive, send_named)
            except Exception:
                log.exception("request.failed")
                if status:
                    raise
                await _crash(request)(scope, receive, send_named)
            log.info(
                "request.finished",
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )


class HeadLimit:
    """Refuses a request whose target or headers are larger than any of ours, before anything reads them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        problem = _too_large(scope) if scope["type"] == "http" else None
        if problem is None:
            await self.app(scope, receive, send)
        else:
            await problem_response(Request(scope), problem)(scope, receive, send)


class BodyLimit:
    """Refuses a body that declares, or turns out to have, more than `limit` bytes; `larger` has its own per path."""

    def __init__(self, app: ASGIApp, limit: int, larger: Mapping[str, int]) -> None:
        self.app = app
        self.limit = limit
        self.larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.larger.get(scope["path"], self.limit)
        detail = f"The body is larger than {limit} bytes."
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > limit:
            problem = Problem("BODY_TOO_LARGE", detail, headers={"Connection": "close"})
            await problem_response(Request(scope), problem)(scope, receive, send)
            return
        read = 0

        async def receive_bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                # FastAPI lets only this class through while it reads a body.
                raise HTTPException(413, detail, headers={"Connection": "close"})
            return message

        await self.app(scope, receive_bounded, send)


def _too_large(scope: Scope) -> Problem | None:
    closing = {"Connection": "close"}
    if len(scope["query_string"]) + len(scope["path"]) > MAX_TARGET:
        detail = f"Path and query are longer than {MAX_TARGET} bytes."
        return Problem("URI_TOO_LONG", detail, headers=closing)
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
        detail = f"The headers are larger than {MAX_HEADERS} bytes."
        return Problem("HEADERS_TOO_LARGE", detail, headers=closing)
    return None


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{ULID()}"


def _log_fields(request: Request) -> dict[str, str]:
    trace = _TRACE.fullmatch(request.headers.get("traceparent", ""))
    return {
        "request_id": request.state.request_id,
        "method": request.method,
        "path": request.url.path[:200],
        **({"trace_id": trace["trace"]} if trace else {}),
    }


def _crash(request: Request) -> ASGIApp:
    return problem_response(
        request, Problem("INTERNAL", "The server failed; its log has the details under request_id.")
    )
