"""Named coefficients of CRePE: those that ship with the package, and those that found jobs stored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import Field

from pruning_core.errors import PresetNotFound
from pruning_core.spec.base import Frozen
from pruning_core.spec.element_methods import COEFFICIENTS, ElementMethod, Neighbour, Share
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report_parts.search import SearchReport

_FOLDER = Path(__file__).parent / "preset_files"


class Preset(Frozen):
    """What a search decided."""

    alpha: Share
    beta: Share
    gamma: Share
    kernel: int = Field(ge=1, le=255)
    neighbour: Neighbour = "ratio"
    found: str = Field(max_length=500)
    """Where it comes from: model, ratio, text, search."""


@cache
def shipped() -> Mapping[str, Preset]:
    """Return the presets of the package by name."""
    return {
        path.stem: Preset.model_validate_json(path.read_bytes())
        for path in sorted(_FOLDER.glob("*.json"))
    }


def expand(spec: PruneSpec, stored: Mapping[str, Preset] | None = None) -> PruneSpec:
    """Return the specification with a preset's name replaced by its coefficients.

    Args:
        spec: Any specification; one that names no preset is returned as it is.
        stored: Presets beside the shipped ones; on equal names these win.

    Raises:
        PresetNotFound: no preset has the name.
    """
    method = spec.method
    if not isinstance(method, ElementMethod) or method.preset_name is None:
        return spec
    known = {**shipped(), **(stored or {})}
    preset = known.get(method.preset_name)
    if preset is None:
        raise PresetNotFound(
            f"No preset is called {method.preset_name!r}; there are: {', '.join(sorted(known)) or 'none'}.",
            suggestions=("list them with GET /v1/presets", "give alpha, beta, gamma and kernel"),
            pointer="/prune/method/preset",
        )
    decided = method.decided(preset.model_dump(include=set(COEFFICIENTS)))
    return spec.model_copy(update={"method": decided})


def searched(spec: PruneSpec, report: SearchReport, origin: str) -> Preset:
    """Return what a search found, for other jobs.

    Args:
        spec: Of the job that searched.
        report: What came of it.
        origin: Where it comes from, in words.
    """
    assert isinstance(spec.method, ElementMethod)
    coefficients = spec.method.decided(report.coefficients).model_dump(include=set(COEFFICIENTS))
    return Preset.model_validate({**coefficients, "found": origin})
