"""What a submission would run as, why it must not, and how long it would take."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from api import presets, schemas, userfiles
from api.deps import Caller, Parts
from api.problems import Problem
from pruning_core.admission import estimate, submission
from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.errors import HubUnavailable, PruningError
from pruning_core.fetch import hub_model
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec
from store.settings import Settings

HUB_SECONDS = 3.0


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
        facts = submission.check(
            body.model,
            prune,
            roots=settings.model_roots,
            tasks_dir=settings.tasks_dir,
            files=files,
            of_hub=_ask_hub(body.model, parts),
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


def _ask_hub(model: ModelRef, parts: Parts) -> CheckpointFacts | None:
    """Return what the headers of a hub model tell, where the hub answers soon; else the worker asks."""
    if model.repo is None or not parts.hub.answers():
        return None
    read = partial(hub_model.inspect, model.repo, model.revision, seconds=HUB_SECONDS)
    with suppress(HubUnavailable):
        facts, _ = parts.hub_calls.within(HUB_SECONDS, read)
        return facts
    return None


def _machine(settings: Settings) -> estimate.Machine | None:
    return estimate.Machine(settings.device, settings.flops) if settings.device else None
