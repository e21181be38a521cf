"""Stored files as answers: whole, a range, or only the news that nothing has changed."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import Message, Receive, Scope, Send

from api.conditional import matches
from api.problems import Problem, problem_response

_ONE_RANGE = re.compile(
    r"\s*bytes\s*=\s*(?:(?P<first>\d{1,18})-(?P<last>\d{0,18})|-\d{1,18})\s*", re.I | re.A
)


def respond(
    request: Request, file: Path, *, sha256: str, filename: str, media_type: str
) -> Response:
    """Return the file, the range asked for, or 304 where the client has it.

    Raises:
        Problem: NOT_FOUND, where the file has gone.
    """
    headers = _headers(sha256)
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if not file.is_file():
        raise Problem("NOT_FOUND", "The file is no longer in the artifact store.")
    return RangedFile(file, filename=filename, headers=headers, media_type=media_type)


class RangedFile(FileResponse):
    """A file whose refusals of a range are problems, like every other refusal."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, the range or the refusal."""
        refused = False
        scope = _with_range_that_counts(scope)

        async def send_or_refuse(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = True
                await _refusal(scope, self.path)(scope, receive, send)
            elif not refused:
                await send(message)

        await super().__call__(scope, receive, send_or_refuse)


def _with_range_that_counts(scope: Scope) -> Scope:
    """Leave out a range of another unit, of several parts or of no sense, as RFC 9110 section 14.2 has it."""
    found = _ONE_RANGE.fullmatch(Headers(scope=scope).get("range", ""))
    in_order = found and not (found["last"] and int(found["first"]) > int(found["last"]))
    if scope["method"] == "GET" and in_order:
        return scope
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}


def _refusal(scope: Scope, path: Any) -> Response:
    size = path.stat().st_size
    problem = Problem(
        "RANGE_NOT_SATISFIABLE",
        f"Give ranges as `bytes=first-last` within 0-{size - 1}.",
        headers={"Content-Range": f"bytes */{size}"},
    )
    return problem_response(Request(scope), problem)


def _headers(sha256: str) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {
        "ETag": f'"{sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
    }
