"""The Gini index of scores, whole or in part: the proxies that the pilot compares with the energy.

G(x) = sum over i of (2 i - N - 1) x_(i) / (N * sum of x),  x >= 0 ascending, i = 1..N

0 where all are equal (or all are 0), towards 1 where few hold everything; the same for c x as for x.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Part = Literal["kept", "removed", "masked", "all"]
"""Whose index: the scores that stay, those that go, all with those that go set to 0, or all as they are."""
Scores: TypeAlias = npt.NDArray[np.float32]


def gini(ascending: Scores, zeros: int = 0) -> float:
    """Return the index.

    Args:
        ascending: [count], at least 0, sorted.
        zeros: How many zeros stand before what is given.
    """
    size = zeros + len(ascending)
    total = float(ascending.sum())
    if not total:
        return 0.0
    ranks = np.arange(2 * zeros + 1 - size, size, 2, dtype=np.float32)
    return float(ascending @ ranks) / (size * total)


def part_gini(ascending: Scores, removed: int, part: Part) -> float:
    """Return the index of a part.

    Args:
        ascending: [count], at least 0, sorted.
        removed: How many go, the lowest.
        part: Which part.
    """
    if part == "all":
        return gini(ascending)
    if part == "removed":
        return gini(ascending[:removed])
    return gini(ascending[removed:], zeros=removed if part == "masked" else 0)
