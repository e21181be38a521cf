"""Conditional requests: `If-None-Match` against an entity tag."""

from __future__ import annotations


def matches(header: str | None, etag: str) -> bool:
    """Compare weakly, as RFC 9110 section 13.1.2 asks."""
    if header is None:
        return False
    given = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in given or etag.removeprefix("W/") in given
