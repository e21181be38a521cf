"""Pages of a listing: how many are asked for, and the way to the next."""

from __future__ import annotations

from typing import Final

from fastapi import Response
from starlette.requests import Request

MAX_PAGE: Final = 100


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Put the URL of the next page into `Link`, where there is one (RFC 8288)."""
    if cursor is not None:
        following = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
