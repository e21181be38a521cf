"""The union of every method that a request may name."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from pruning_core.spec.element_methods import (
    ALPS,
    RIA,
    CRePE,
    ElementMethod,
    Magnitude,
    SparseGPT,
    Wanda,
)
from pruning_core.spec.unit_method import UnitMethod
from pruning_core.spec.unit_methods import (
    FLAP,
    GOA,
    Contextual,
    Diet,
    LayerDrop,
    RandomUnits,
    WandaSp,
)

Method = Annotated[
    Magnitude
    | Wanda
    | SparseGPT
    | RIA
    | CRePE
    | ALPS
    | Diet
    | GOA
    | FLAP
    | WandaSp
    | LayerDrop
    | RandomUnits
    | Contextual,
    Field(discriminator="name"),
]

METHODS: tuple[type[ElementMethod | UnitMethod], ...] = get_args(get_args(Method)[0])
"""Every method, from the union: a new class is listed by being in it."""


def method_name(method: type[ElementMethod | UnitMethod]) -> str:
    """Return the name that requests use."""
    name: str = method.model_fields["name"].default
    return name
