"""Which parameters stock transformers builds for a configuration: `named_parameters` of the model, without building it.

Names are those of the causal model; experts have a tensor each where checkpoints store them so.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from pruning_core.families.base import Family
from pruning_core.families.settings import completed
from pruning_core.families.shapes import Shape, Shapes


def is_tied(config: Mapping[str, Any]) -> bool:
    """Tell whether the head is the embedding."""
    return bool(completed(config)["tie_word_embeddings"])


def named(family: Family, config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Yield the name and shape of every parameter; of a head that is the embedding no second one."""
    settings = completed(config)
    outside, block = family.parameters(SimpleNamespace(**settings))
    for name, shape in outside.items():
        if name != family.head or not is_tied(config):
            yield name, shape
    for index in range(settings[family.width_keys["layers"]]):
        for name, shape in block.items():
            yield f"{family.blocks}.{index}.{name}", shape


def parameters(family: Family, config: Mapping[str, Any]) -> Shapes:
    """Return the shape of every parameter by name."""
    return dict(named(family, config))


def embedding(family: Family) -> str:
    """Return the name of the token embedding."""
    both = ("vocabulary", "hidden")
    return next(
        name for name, axes in family.outside.items() if axes == both and name != family.head
    )


def written(family: Family, name: str) -> str:
    """Return the name under which stock transformers saves a parameter."""
    for inside, other in family.file_names:
        name = name.replace(inside, other)
    return name


def stored_name(family: Family, name: str, stored: Container[str]) -> str | None:
    """Return the name of a parameter in files that hold these, or None.

    Checkpoints of a base model lack its prefix (`h.0...` for `transformer.h.0...`).
    """
    spellings = (written(family, name), name)
    candidates = (*spellings, *(spelling.partition(".")[2] for spelling in spellings))
    return next((candidate for candidate in candidates if candidate in stored), None)


def counted(family: Family, config: Mapping[str, Any], stored: Container[str]) -> set[str]:
    """Return the names in the files of what stock transformers counts; of a tied pair one."""
    names = {stored_name(family, name, stored) for name, _ in named(family, config)}
    if None in names and family.head in stored:
        names.add(family.head)
    return {name for name in names if name is not None}
