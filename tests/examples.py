"""How many examples hypothesis tries: as many as a test says, and with the profile `many` as many times more as it has."""

from __future__ import annotations

from hypothesis import settings

USUAL = 100
"""What hypothesis tries where a test says nothing."""


def examples(number: int) -> int:
    return number * settings.default.max_examples // USUAL
