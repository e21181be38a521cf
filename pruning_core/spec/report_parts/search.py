"""How coefficients were searched."""

from __future__ import annotations

from pruning_core.spec.base import Frozen


class TrialReport(Frozen):
    """One candidate of a search."""

    g: float
    b: float
    kernel: int
    value: float
    """What the search minimises: the proxy, or the perplexity on the search text."""


class SearchReport(Frozen):
    """How coefficients were found: every candidate, and the check that decided."""

    name: str
    evaluations: int
    seconds_observing: float
    """Of taking the dense model's statistics, which pruning needs as well."""
    seconds_searching: float
    """Of trying candidates."""
    seconds_checking: float
    """Of the perplexities of RIA and of the best candidate, with and without its neighbourhood term, where the search itself measured none."""
    windows: int
    digest: str
    """sha256 of the search text's token ids."""
    perplexity_ria: float
    perplexity_found: float
    """Of the best candidate, on the search text."""
    kept_ria: bool
    """The best candidate did not beat RIA, so RIA's coefficients were used."""
    alpha: float
    beta: float
    gamma: float
    kernel: int
    trials: tuple[TrialReport, ...]

    @property
    def coefficients(self) -> dict[str, float]:
        """What was found, as parameters of the method."""
        return {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma, "kernel": self.kernel}
