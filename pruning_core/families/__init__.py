"""Architectures that can be pruned."""

from __future__ import annotations

from pruning_core.errors import UnsupportedModel
from pruning_core.families.base import Family
from pruning_core.families.gemma import GEMMA
from pruning_core.families.gpt2 import GPT2
from pruning_core.families.llama import LLAMA
from pruning_core.families.moe import GPT_OSS, MIXTRAL, QWEN3_MOE
from pruning_core.families.opt import OPT
from pruning_core.families.phi import PHI, PHI3

FAMILIES: tuple[Family, ...] = (LLAMA, GEMMA, OPT, GPT2, PHI, PHI3, MIXTRAL, QWEN3_MOE, GPT_OSS)


def is_known(model_type: object) -> bool:
    """Tell whether a table describes a `model_type`."""
    return any(model_type in family.model_types for family in FAMILIES)


def family_of(model_type: str) -> Family:
    """Return the table of a `model_type`.

    Raises:
        UnsupportedModel: none describes it.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.model_types))
    raise UnsupportedModel(f"model_type {model_type!r} is not supported; supported are: {known}")
