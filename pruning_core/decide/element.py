"""What is decided before the first block: coefficients by search, ratios by allocation.

Both are kept on disk, so that a resumed run neither searches nor allocates again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from pruning_core.decide.allocate import allocate, allocated
from pruning_core.decide.search import CandidateEvaluator, search
from pruning_core.errors import ResumeMismatch
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.plans.element import ElementPlan
from pruning_core.selection.masks import Selector
from pruning_core.spec.element_methods import ElementMethod
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report_parts.search import SearchReport
from pruning_core.spec.search import Search
from pruning_core.system import run_folder
from pruning_core.system.files import replacing
from pruning_core.system.progress import Tracker
from pruning_core.text.windows import Windows


class Decided(BaseModel):
    """The outcome, for the run of this fingerprint alone."""

    fingerprint: str
    complete: bool = False
    search: SearchReport | None = None
    ratios: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Decision:
    """What deciding needs.

    Attributes:
        model: The dense model.
        spec: What was asked for.
        windows: Calibration windows, if anything reads them.
        search_text: Windows that candidates are judged on, if the specification searches.
        tracker: Told of every step.
    """

    model: StreamedModel
    spec: PruneSpec
    windows: Windows | None
    search_text: Windows | None
    tracker: Tracker

    def make(
        self, folder: Path, fingerprint: str, *, begun: bool
    ) -> tuple[ElementPlan, SearchReport | None]:
        """Return the plan of the walk and the report of the search, from `folder` as far as they are there.

        Args:
            folder: Work folder of the run.
            fingerprint: Of the run.
            begun: Whether blocks were pruned already, by a decision that must then be there.

        Raises:
            ResumeMismatch: it is not.
        """
        path = folder / run_folder.DECIDED
        decided = _read(path, fingerprint)
        if begun and not decided.complete and self._to_decide:
            raise ResumeMismatch(
                f"{folder} has pruned blocks, but not what was decided before them: remove it to start again"
            )
        asked, text = self.spec.search, self.search_text
        if asked is not None and text is not None and decided.search is None:
            decided.search = self._search(asked, text)
            _write(path, decided)
        if decided.ratios is None and self.spec.allocation.varies:
            decided.ratios = self._ratios()
        decided.complete = True
        _write(path, decided)
        plan = ElementPlan.of(_with_winner(self.spec, decided.search))
        if decided.ratios is not None:
            plan = allocated(plan, self.model, decided.ratios)
        return plan, decided.search

    @property
    def _to_decide(self) -> bool:
        return self.search_text is not None or self.spec.allocation.varies

    def _search(self, asked: Search, text: Windows) -> SearchReport:
        self.tracker.begin("searching", len(self.model.blocks))
        assert isinstance(self.spec.method, ElementMethod)
        select = Selector(self.spec.ratio, self.spec.pattern)
        evaluator = CandidateEvaluator(self.model, self.spec.method, select, text, self.tracker)
        return search(asked, evaluator, self._states())

    def _ratios(self) -> tuple[float, ...]:
        self.tracker.begin("allocating", len(self.model.blocks))
        states = self._states() if self.spec.allocation.needs_calibration else None
        return allocate(self.model, self.spec, states, self.tracker)

    def _states(self) -> Activations:
        assert self.windows is not None
        return Activations(self.model, self.windows.groups, alive=self.tracker.alive)


def _read(path: Path, fingerprint: str) -> Decided:
    try:
        decided = Decided.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):  # none, or of another version: decide anew
        return Decided(fingerprint=fingerprint)
    return decided if decided.fingerprint == fingerprint else Decided(fingerprint=fingerprint)


def _write(path: Path, decided: Decided) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(decided.model_dump_json(), encoding="utf-8")


def _with_winner(spec: PruneSpec, winner: SearchReport | None) -> PruneSpec:
    """Return the specification with a search replaced by what it winner."""
    if winner is None or not isinstance(spec.method, ElementMethod):
        return spec
    return spec.model_copy(update={"method": spec.method.decided(winner.coefficients)})
