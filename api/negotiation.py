"""What a client would rather have: the page for people, or JSON for programs."""

from __future__ import annotations


def prefers_html(accept: str | None) -> bool:
    """Return whether `Accept` ranks HTML above JSON, as RFC 9110 section 12.5.1 reads it; equal ranks mean JSON."""
    ranges = [_range(part) for part in (accept or "*/*").split(",")]
    return _rank(ranges, "text/html") > _rank(ranges, "application/json")


def _range(text: str) -> tuple[str, float]:
    media, *parameters = (part.strip().lower() for part in text.split(";"))
    weights = [value[2:] for value in parameters if value.startswith("q=")]
    try:
        return media, float(weights[0]) if weights else 1.0
    except ValueError:
        return media, 0.0


def _rank(ranges: list[tuple[str, float]], media: str) -> float:
    """Return the weight of the most specific range that covers the type; 0 where none does."""
    for covering in (media, f"{media.partition('/')[0]}/*", "*/*"):
        for given, weight in ranges:
            if given == covering:
                return weight
    return 0.0
