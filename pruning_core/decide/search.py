"""Runs a search of a method's coefficients on the dense model, and the check that its winner must pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import torch
from torch import nn

from pruning_core.errors import NumericalFailure
from pruning_core.evaluate.perplexity import perplexity
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.plans.registry import coefficient_search, element
from pruning_core.prune.walk import observe
from pruning_core.searches.space import RIA, Trial, coefficients
from pruning_core.selection.masks import Selector
from pruning_core.spec.element_methods import ElementMethod
from pruning_core.spec.report_parts.search import SearchReport, TrialReport
from pruning_core.spec.search import Search
from pruning_core.system.progress import Tracker
from pruning_core.text.windows import Windows

WORST = 1e300
"""Stands for a perplexity that is not finite: reports hold no infinity."""
T = TypeVar("T", bound=ElementMethod)


@dataclass
class CandidateEvaluator:
    """Perplexity of candidates: every matrix of the dense model masked at once, by statistics of the dense model.

    Attributes:
        model: The dense model.
        method: Whose coefficients are searched.
        select: Ratio and pattern.
        text: The search text.
        tracker: Told of every batch.
    """

    model: StreamedModel
    method: ElementMethod
    select: Selector
    text: Windows
    tracker: Tracker
    _stats: list[list[Stats]] = field(default_factory=list)

    def observe(
        self,
        states: Activations,
        see: Callable[[torch.Tensor, Stats], None],
        block_done: Callable[[int], None],
    ) -> None:
        """Take the dense model's statistics, showing every matrix, [out, in], and those of its input to `see`."""
        self._stats = []

        def visit(_index: int, inputs: Sequence[tuple[InputGroup, Stats]]) -> None:
            self._stats.append([stats for _, stats in inputs])
            for group, stats in inputs:
                for matrix in group.matrices:
                    see(matrix.read(), stats)

        observe(self.model, states, element(self.method).needs, visit, block_done)

    def perplexity(self, g: float, b: float, kernel: int) -> float:
        """Return a candidate's perplexity on the search text; one that ruins the model is the worst there is."""
        candidate = element(with_coefficients(self.method, g, b, kernel))

        def mask(index: int, block: nn.Module) -> None:
            groups = input_groups(block, self.model.family, self.model.config)
            for group, stats in zip(groups, self._stats[index], strict=True):
                for matrix in group.matrices:
                    pruned, _ = candidate.prune(matrix.read(), stats, self.select)
                    matrix.write(pruned, stored=self.model.dtype)

        try:
            return perplexity(self.model, self.text.groups, alive=self.tracker.alive, prepare=mask)
        except NumericalFailure:
            if (g, b, kernel) == RIA:
                raise
            return WORST


def search(params: Search, evaluator: CandidateEvaluator, states: Activations) -> SearchReport:
    """Return what a search finds; RIA is always a candidate.

    Args:
        params: How to search.
        evaluator: What candidates are judged by.
        states: Of the calibration windows, at the first block of the dense model.
    """
    watch, tracker, trials = _Stopwatch(), evaluator.tracker, list[Trial]()

    def evaluated(trial: Trial) -> None:
        trials.append(trial)
        tracker.alive()

    ratio = evaluator.select.ratio
    searching = coefficient_search(params, evaluator.method, ratio, evaluator.perplexity)
    evaluator.observe(states, searching.see, lambda index: tracker.step(index + 1))
    seconds_observing = watch.lap()
    best = searching.find(evaluated)
    seconds_searching = watch.lap()
    ria, best = searching.check(trials[0], best)
    kept_ria = best.value >= ria.value
    used = ria if kept_ria else best
    alpha, beta, gamma = coefficients(used.g, used.b)
    return SearchReport(
        name=params.name,
        evaluations=len(trials),
        seconds_observing=seconds_observing,
        seconds_searching=seconds_searching,
        seconds_checking=watch.lap(),
        windows=evaluator.text.samples,
        digest=evaluator.text.digest,
        perplexity_ria=ria.value,
        perplexity_found=best.value,
        kept_ria=kept_ria,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        kernel=used.kernel,
        trials=tuple(TrialReport(**asdict(trial)) for trial in trials),
    )


class _Stopwatch:
    """Seconds between laps."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        began, self._began = self._began, time.perf_counter()
        return self._began - began


def with_coefficients(method: T, g: float, b: float, kernel: int) -> T:
    """Return the method at a point of the search space."""
    alpha, beta, gamma = coefficients(g, b)
    return method.decided({"alpha": alpha, "beta": beta, "gamma": gamma, "kernel": kernel})
