"""One class per method: its parameters with bounds, and what the catalogue says about it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from pruning_core.spec.base import Frozen
from pruning_core.spec.patterns import PatternName

MethodKind = Literal["element", "units"]


class ElementMethod(Frozen):
    """What the catalogue knows of a method that zeroes single weights."""

    kind: ClassVar[MethodKind] = "element"
    summary: ClassVar[str]
    source: ClassVar[str]
    needs_calibration: ClassVar[bool]
    patterns: ClassVar[tuple[PatternName, ...]] = ("row", "matrix", "n:m")
    default_pattern: ClassVar[PatternName]
    output: ClassVar[str] = "dense safetensors of the source's dtype and size, with exact zeros"


class Magnitude(ElementMethod):
    """Remove the weights with the smallest absolute value."""

    summary = "smallest absolute values go; the baseline, no calibration data"
    source = "classic baseline, as in arXiv 2301.00774 and 2306.11695"
    needs_calibration = False
    default_pattern = "matrix"

    name: Literal["magnitude"] = "magnitude"


class Wanda(ElementMethod):
    """Remove the weights with the smallest |weight| x root mean square of their input."""

    summary = "weights x activations, compared within each output row"
    source = "Sun, Liu, Bair, Kolter: arXiv 2306.11695"
    needs_calibration = True
    default_pattern = "row"

    name: Literal["wanda"] = "wanda"


Method = Annotated[Magnitude | Wanda, Field(discriminator="name")]

METHODS: tuple[type[ElementMethod], ...] = get_args(get_args(Method)[0])
"""Every method, from the union: a new class is listed by being in it."""


def method_name(method: type[ElementMethod]) -> str:
    """Return the name that requests use."""
    name: str = method.model_fields["name"].default
    return name
