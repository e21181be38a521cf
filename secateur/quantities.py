"""Numbers as people write them: 100M parameters, 1.2 GB."""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(
    r"^\s*(?P<digits>\d{1,20}(?:_\d{1,20})*(?:\.\d{1,20})?)\s*(?P<factor>[kmgt]?)(?P<binary>i?)(?P<unit>b?)\s*$",
    re.IGNORECASE,
)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parameters(text: str) -> int:
    """Return a number of parameters: 500000, 135M, 1.2B (or 1.2G).

    Raises:
        ValueError: it is none.
    """
    found = _NUMBER.match(text)
    if found is None or found["binary"] or (found["factor"] and found["unit"]):
        raise ValueError(f"{text!r} is no number of parameters like 135M or 1.2B")
    return _whole(
        text, found["digits"], 1000 ** _POWERS["g" if found["unit"] else found["factor"].lower()]
    )


def byte_count(text: str) -> int:
    """Return a number of bytes: 500000, 250M or 250MB (millions), 1.2GiB (of 2**30).

    Raises:
        ValueError: it is none.
    """
    found = _NUMBER.match(text)
    if found is None or (found["binary"] and not found["factor"]):
        raise ValueError(f"{text!r} is no number of bytes like 250M, 1.2GB or 1.2GiB")
    base = 1024 if found["binary"] else 1000
    return _whole(text, found["digits"], base ** _POWERS[found["factor"].lower()])


def _whole(text: str, digits: str, factor: int) -> int:
    number = int(Decimal(digits) * factor)
    if number < 1 or (factor == 1 and number != Decimal(digits)):
        raise ValueError(f"{text!r} is no whole number from 1 on")
    return number
