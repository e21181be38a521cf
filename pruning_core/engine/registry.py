"""Finds the function that implements a method: `pruning_core.methods.<name>`, for the names of the closed union only."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pruning_core.engine.patterns import Selector
from pruning_core.engine.stats import Stats
from pruning_core.spec.methods import ElementMethod, method_name

ElementFunction = Callable[
    [torch.Tensor, Stats, Selector, ElementMethod], tuple[torch.Tensor, torch.Tensor]
]


@dataclass(frozen=True)
class Element:
    """An element-wise method.

    Attributes:
        needs: Names of the statistics that it reads.
        prune: (weight [out, in] float32, stats, select, params) -> (weight, keep), both [out, in].
    """

    needs: frozenset[str]
    prune: ElementFunction


def element(params: ElementMethod) -> Element:
    """Return the implementation of a method's parameters; its file defines `NEEDS` and `prune`."""
    module = importlib.import_module(f"pruning_core.methods.{method_name(type(params))}")
    return Element(needs=frozenset(module.NEEDS), prune=module.prune)
