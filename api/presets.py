"""What a specification that names a preset, or would store one, means in its project."""

from __future__ import annotations

from api.deps import Caller, Parts
from api.problems import FieldError, Problem
from pruning_core.admission.presets import Preset, expand, shipped
from pruning_core.spec.prune import PruneSpec
from store import presets


def resolve(prune: PruneSpec, caller: Caller, parts: Parts) -> PruneSpec:
    """Return the specification with a preset's coefficients in the place of its name.

    Raises:
        PresetNotFound: neither the project nor the package has a preset of this name.
        Problem: PRESET_EXISTS, where the name that a search would be stored under is taken.
    """
    save_as = prune.search.save_as if prune.search else None
    if prune.preset is None and save_as is None:
        return prune
    with parts.database.read() as session:
        rows = presets.of_project(session, caller.project)
        stored = {name: Preset.model_validate(row.coefficients) for name, row in rows.items()}
    if save_as is not None and (save_as in stored or save_as in shipped()):
        raise _taken(save_as)
    return expand(prune, stored)


def _taken(name: str) -> Problem:
    detail = f"There is a preset {name!r} already, and a preset is never replaced."
    return Problem(
        "PRESET_EXISTS",
        detail,
        errors=(FieldError(pointer="/prune/method/search/save_as", detail=detail),),
        suggestions=("choose another name", f'use it: `"preset": "{name}"` in place of `search`'),
    )
