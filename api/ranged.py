"""Stored files as answers: whole, a range, or only the news that nothing has changed."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from email.utils import format_datetime
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from api.conditional import matches
from api.problems import Problem
from store.artifact_store import ArtifactStore, Stored

_RANGE = re.compile(
    r"\s*bytes\s*=\s*(?:(?P<first>\d{1,18})-(?P<last>\d{0,18})|-(?P<count>\d{1,18}))\s*",
    re.IGNORECASE | re.ASCII,
)


def respond(
    request: Request,
    artifacts: ArtifactStore,
    key: str,
    *,
    sha256: str,
    filename: str,
    media_type: str,
) -> Response:
    """Return the file, the range asked for, 304 where the client has it, or 307 to the store where that sends it.

    Raises:
        Problem: NOT_FOUND, where the file has gone; RANGE_NOT_SATISFIABLE, where it is shorter.
    """
    headers = _headers(sha256, filename)
    if matches(request.headers.get("if-none-match"), headers["ETag"]):
        headers.pop("Content-Disposition")
        return Response(status_code=304, headers=headers)
    stored = artifacts.stat(key)
    if stored is None:
        raise Problem("NOT_FOUND", "The file is no longer in the artifact store.")
    url = artifacts.presign(key, filename=filename, media_type=media_type)
    if url is not None:
        return RedirectResponse(url, headers={"Cache-Control": "no-store"})
    return send(request, artifacts, key, stored, headers=headers, media_type=media_type)


def send(
    request: Request,
    artifacts: ArtifactStore,
    key: str,
    stored: Stored,
    *,
    headers: Mapping[str, str],
    media_type: str,
) -> Response:
    """Return a stored file, or the range of it that is asked for.

    Raises:
        Problem: RANGE_NOT_SATISFIABLE.
    """
    sent = {
        "Last-Modified": format_datetime(stored.modified, usegmt=True),
        "ETag": f'"{stored.modified.timestamp():.6f}-{stored.bytes}"',
        "Accept-Ranges": "bytes",
        **headers,
    }
    start, stop, status = 0, stored.bytes, 200
    asked = _range(request, sent)
    if asked is not None:
        start, stop, status = *_within(asked, stored.bytes), 206
        sent["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.bytes}"
    sent["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=sent, media_type=media_type)
    return StreamingResponse(artifacts.open(key, start, stop), status, sent, media_type)


def _range(request: Request, sent: Mapping[str, str]) -> re.Match[str] | None:
    """Return the range that counts: none of another unit, of several parts or of no sense (RFC 9110 section 14.2)."""
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    same = request.headers.get("if-range") in (None, sent["ETag"], sent["Last-Modified"])
    if match is None or request.method != "GET" or not same:
        return None
    is_in_order = not match["last"] or int(match["first"]) <= int(match["last"])
    return match if is_in_order else None


def _within(asked: re.Match[str], size: int) -> tuple[int, int]:
    """Return where a range begins and ends in a file of this size."""
    if asked["count"]:
        start, stop = max(size - int(asked["count"]), 0), size
    else:
        start = int(asked["first"])
        stop = min(int(asked["last"]) + 1, size) if asked["last"] else size
    if start >= size:
        raise Problem(
            "RANGE_NOT_SATISFIABLE",
            f"Give ranges as `bytes=first-last` within 0-{size - 1}.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, stop


def _headers(sha256: str, filename: str) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(sha256)).decode()
    quoted = quote(filename)
    name = f'filename="{filename}"' if quoted == filename else f"filename*=utf-8''{quoted}"
    return {
        "ETag": f'"{sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
        "Content-Disposition": f"attachment; {name}",
    }
