"""Named coefficients of CRePE: those that ship with the package, and those that found jobs stored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import Field

from pruning_core.errors import PresetNotFound
from pruning_core.spec.base import Frozen
from pruning_core.spec.element_methods import CRePE, Neighbour, Share
from pruning_core.spec.prune import PruneSpec

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
    if not isinstance(spec.method, CRePE) or spec.method.preset is None:
        return spec
    known = {**shipped(), **(stored or {})}
    preset = known.get(spec.method.preset)
    if preset is None:
        raise PresetNotFound(
            f"No preset is called {spec.method.preset!r}; there are: {', '.join(sorted(known)) or 'none'}.",
            suggestions=("list them with GET /v1/presets", "give alpha, beta, gamma and kernel"),
            pointer="/prune/method/preset",
        )
    update = {**preset.model_dump(exclude={"found"}), "preset": None}
    return spec.model_copy(update={"method": spec.method.model_copy(update=update)})
