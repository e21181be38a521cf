"""Numbers as people write them: 50 %, 100M parameters, 1.2 GB."""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(
    r"^\s*(?P<digits>\d{1,20}(?:_\d{1,20})*(?:\.\d{1,20})?)\s*(?P<factor>[kmgt]?)(?P<binary>i?)(?P<unit>b?)\s*$",
    re.IGNORECASE,
)
_SHARE = re.compile(r"^\s*(?P<digits>\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})\s*(?P<percent>%?)\s*$")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Unclear(ValueError):
    """A number without its unit; `percent` is what it was probably meant to be, as a share."""

    def __init__(self, text: str, percent: float) -> None:
        super().__init__(f"did you mean {text}% or {percent:g}?")
        self.percent = percent


def share(text: str) -> float:
    """Return a share between 0 and 1, both excluded: 0.5 or 50%.

    Raises:
        Unclear: it is a number from 1 on without a percent sign.
        ValueError: it is none.
    """
    match = _SHARE.match(text)
    if match is None:
        comma = text.replace(",", ".", 1)
        hint = f": did you mean {comma}?" if _SHARE.match(comma) else ""
        raise ValueError(f"{text!r} is no share like 0.5 or 50%{hint}")
    number = float(match["digits"])
    if not match["percent"] and 1 < number < 100:
        raise Unclear(match["digits"], float(Decimal(match["digits"]) / 100))
    value = float(Decimal(match["digits"]) / 100) if match["percent"] else number
    if not 0 < value < 1:
        raise ValueError(f"{text!r} is not between 0 and 1 (0% and 100%), both excluded")
    return value


def bound(text: str) -> float:
    """Return a number, or a percentage as its hundredth.

    Raises:
        ValueError: it is none.
    """
    stripped = text.strip()
    if not stripped.endswith("%"):
        return float(stripped)
    return float(stripped[:-1]) / 100


def parameters(text: str) -> int:
    """Return a number of parameters: 500000, 135M, 1.2B (or 1.2G).

    Raises:
        ValueError: it is none.
    """
    match = _NUMBER.match(text)
    if match is None or match["binary"] or (match["factor"] and match["unit"]):
        raise ValueError(f"{text!r} is no number of parameters like 135M or 1.2B")
    return _whole(
        text, match["digits"], 1000 ** _POWERS["g" if match["unit"] else match["factor"].lower()]
    )


def byte_count(text: str) -> int:
    """Return a number of bytes: 500000, 250M or 250MB (millions), 1.2GiB (of 2**30).

    Raises:
        ValueError: it is none.
    """
    match = _NUMBER.match(text)
    if match is None or (match["binary"] and not match["factor"]):
        raise ValueError(f"{text!r} is no number of bytes like 250M, 1.2GB or 1.2GiB")
    base = 1024 if match["binary"] else 1000
    return _whole(text, match["digits"], base ** _POWERS[match["factor"].lower()])


def _whole(text: str, digits: str, factor: int) -> int:
    number = int(Decimal(digits) * factor)
    if number < 1 or (factor == 1 and number != Decimal(digits)):
        raise ValueError(f"{text!r} is no whole number from 1 on")
    return number
