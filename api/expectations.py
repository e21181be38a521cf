"""What a submission would run as, why it must not, and how long it would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api import presets, schemas, userfiles
from api.deps import Caller, Parts
from api.errors import Problem
from pruning_core.errors import PruningError
from pruning_core.intake import admission, estimate
from pruning_core.spec.prune import PruneSpec
from store.settings import Settings


@dataclass(frozen=True)
class Admission:
    """What was found of a submission; with a refusal the rest is as far as it came."""

    prune: PruneSpec
    refusal: PruningError | Problem | None = None
    notes: tuple[str, ...] = ()
    estimate: dict[str, Any] | None = None


def admit(body: schemas.JobSubmission, caller: Caller, parts: Parts) -> Admission:
    """Fill in what nobody named, check all that can be known, estimate."""
    settings, prune = parts.settings, body.prune
    machine = _machine(settings)
    try:
        prune = presets.resolve(prune, caller, parts)
        files = userfiles.resolve(prune, caller, parts)
        facts = admission.check(
            body.model, prune, roots=settings.model_roots, tasks_dir=settings.tasks_dir, files=files
        )
        prune, notes = estimate.sized(prune, machine, tasks_dir=settings.tasks_dir, files=files)
        expected = estimate.expected(
            body.model,
            prune,
            machine,
            parameters=facts.parameters if facts else None,
            max_positions=facts.max_positions if facts else None,
            tasks_dir=settings.tasks_dir,
            files=files,
        )
    except (PruningError, Problem) as error:
        return Admission(prune, error)
    return Admission(prune, None, notes, expected)


def _machine(settings: Settings) -> estimate.Machine | None:
    return estimate.Machine(settings.device, settings.flops) if settings.device else None
