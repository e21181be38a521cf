"""How CRePE's coefficients are searched: without perplexity in the loop (PHO), or with it (the baseline)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pruning_core.spec.base import Frozen


class SearchText(Frozen):
    """The text on which candidates are judged: windows of the calibration tasks that calibration did not draw."""

    windows: int = Field(default=8, ge=1, le=1024)
    """Windows held out for the search, of the calibration's length; never evaluation text."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    save_as: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Store what was found as a preset of this name, for other jobs."""


class Pho(SearchText):
    """Proxy-based search by CMA-ES: a proxy in the loop, one perplexity check at the end."""

    name: Literal["pho"] = "pho"
    generations: int = Field(default=25, ge=1, le=1000)
    population: int = Field(default=7, ge=4, le=100)


class HillClimb(SearchText):
    """Hill climb on perplexity: a prune and a perplexity for every candidate. Slow; the baseline that PHO replaces."""

    name: Literal["hill_climb"] = "hill_climb"
    evaluations: int = Field(default=200, ge=1, le=10_000)
    """Most candidates to try."""


Search = Annotated[Pho | HillClimb, Field(discriminator="name")]
