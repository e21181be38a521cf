"""Runs a search of CRePE's coefficients on the dense model, and the check that its winner must pass."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise

from torch import nn

from pruning_core.element_methods import crepe
from pruning_core.errors import NumericalFailure
from pruning_core.evaluate.perplexity import perplexity
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import InputGroup, input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.numerics.input_statistics import Stats
from pruning_core.prune.walk import observe
from pruning_core.searches import hill_climb, pho
from pruning_core.searches.space import RIA, Trial, coefficients
from pruning_core.selection.masks import Selector
from pruning_core.spec.element_methods import CRePE
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import SearchReport, TrialReport
from pruning_core.spec.search import HillClimb
from pruning_core.text.windows import Windows

WORST = 1e300
"""Stands for a perplexity that is not finite: reports hold no infinity."""


@dataclass
class Judge:
    """Perplexity of candidates: every matrix of the dense model masked at once, by statistics of the dense model.

    Attributes:
        model: The dense model.
        spec: Method (CRePE), ratio, pattern.
        text: The search text.
        alive: Called often.
    """

    model: StreamedModel
    spec: PruneSpec
    text: Windows
    alive: Callable[[], None]
    _stats: list[list[Stats]] = field(default_factory=list)

    def observe(
        self,
        states: Activations,
        visit: Callable[[InputGroup, Stats], None],
        block_done: Callable[[int], None],
    ) -> None:
        """Take the dense model's statistics, showing each input and them to `visit`."""
        self._stats = [[] for _ in self.model.blocks]

        def seen(index: int, group: InputGroup, stats: Stats) -> None:
            self._stats[index].append(stats)
            visit(group, stats)

        observe(self.model, states, crepe.NEEDS, seen, block_done)

    def perplexity(self, g: float, b: float, kernel: int) -> float:
        """Return a candidate's perplexity on the search text; one that ruins the model is the worst there is."""
        params = with_coefficients(self._method, g, b, kernel)
        select = Selector(self.spec.ratio, self.spec.pattern)

        def mask(index: int, block: nn.Module) -> None:
            groups = input_groups(block, self.model.family, self.model.config)
            for group, stats in zip(groups, self._stats[index], strict=True):
                for matrix in group.matrices:
                    weight = matrix.read()
                    keep = select.keep(crepe.score(weight, stats, params))
                    matrix.write(weight * keep, stored=self.model.dtype)

        try:
            return perplexity(self.model, self.text.groups, alive=self.alive, prepare=mask)
        except NumericalFailure:
            if (g, b, kernel) == RIA:
                raise
            return WORST

    @property
    def _method(self) -> CRePE:
        assert isinstance(self.spec.method, CRePE)
        return self.spec.method


def search(
    model: StreamedModel,
    spec: PruneSpec,
    states: Activations,
    text: Windows,
    block_done: Callable[[int], None],
    alive: Callable[[], None],
) -> SearchReport:
    """Return what the specification's search finds; RIA is always a candidate, and PHO's best also without neighbours.

    Args:
        model: The dense model.
        spec: Its method is CRePE with a search.
        states: Of the calibration windows, at the first block.
        text: Windows that neither calibration nor evaluation holds.
        block_done: Called with each block's index while the dense model is observed.
        alive: Called often.
    """
    method = spec.method
    assert isinstance(method, CRePE)
    assert method.search is not None
    clock = [time.perf_counter()]
    trials: list[Trial] = []

    def evaluated(trial: Trial) -> None:
        trials.append(trial)
        alive()

    def lap() -> None:
        clock.append(time.perf_counter())

    judge = Judge(model, spec, text, alive)
    if isinstance(method.search, HillClimb):
        judge.observe(states, lambda _group, _stats: None, block_done)
        lap()
        best = hill_climb.climb(judge.perplexity, method.search, evaluated=evaluated)
        lap()
        ria, found = trials[0].value, best.value
    else:
        proxy = pho.Proxy(method, spec.ratio, seed=method.search.seed)
        judge.observe(states, functools.partial(_show, proxy), block_done)
        lap()
        best = pho.minimise(proxy.objective, method.search, evaluated=evaluated)
        lap()
        ria = judge.perplexity(*RIA)
        if best == trials[0]:
            found = ria
        else:
            best = _checked(judge, best)
            found = best.value
    lap()
    observing, searching, checking = (later - sooner for sooner, later in pairwise(clock))
    kept_ria = found >= ria
    g, b, kernel = RIA if kept_ria else (best.g, best.b, best.kernel)
    alpha, beta, gamma = coefficients(g, b)
    return SearchReport(
        name=method.search.name,
        evaluations=len(trials),
        seconds_observing=observing,
        seconds_searching=searching,
        seconds_checking=checking,
        windows=text.samples,
        digest=text.digest,
        perplexity_ria=ria,
        perplexity_found=found,
        kept_ria=kept_ria,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        kernel=kernel,
        trials=tuple(TrialReport(**asdict(trial)) for trial in trials),
    )


def _checked(judge: Judge, best: Trial) -> Trial:
    """Return PHO's best candidate or the same without its neighbourhood term, whichever has the lower perplexity.

    The proxy sees single weights; what a neighbourhood does to the outputs it overrates (`docs/methods/crepe.md`).
    """
    points = [(best.g, best.b, best.kernel)]
    if best.g:
        points.append((0.0, best.b, RIA[2]))
    return min((Trial(*point, judge.perplexity(*point)) for point in points), key=_value)


def _value(trial: Trial) -> float:
    return trial.value


def _show(proxy: pho.Proxy, group: InputGroup, stats: Stats) -> None:
    for matrix in group.matrices:
        proxy.observe(matrix.read(), stats)


def with_coefficients(method: CRePE, g: float, b: float, kernel: int) -> CRePE:
    """Return the method at a point of the search space."""
    alpha, beta, gamma = coefficients(g, b)
    return method.model_copy(
        update={"alpha": alpha, "beta": beta, "gamma": gamma, "kernel": kernel, "search": None}
    )
