"""Whether files hold what their configuration calls for, as far as headers tell: names, shapes, types.

What stock transformers would fill at random is missing; what it leaves aside (buffers of older versions, further heads)
may be there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pruning_core.checkpoints.config import block_count
from pruning_core.checkpoints.weight_files import Stored
from pruning_core.errors import ModelInvalid, UnsupportedModel
from pruning_core.families.base import EXPERT, Family
from pruning_core.families.parameters import embedding, is_tied, named, stored_name, written
from pruning_core.families.shapes import Shape

FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+"
)
"""What data parallelism, compilation, sharding and recomputation put into names; no parameter is called so."""
_PREFIXES = {
    "base_model.": (
        "as peft saves them: an adapter that was not merged",
        "load it with peft, call merge_and_unload() and save_pretrained()",
    ),
    "language_model.": (
        "as in a model of text and images",
        "save its text model alone: load it with stock transformers and call save_pretrained() of `language_model`",
    ),
}
_QUANTISED = ("qweight", "weight_packed", "weight_blocks")


@dataclass(frozen=True)
class Unwrapped:
    """Tensors under the names that stock transformers gives them.

    Attributes:
        stored: The tensors.
        wrapped: Names in the files that differ, by the names here.
    """

    stored: Stored
    wrapped: Mapping[str, str]


def unwrap(stored: Stored) -> Unwrapped:
    """Take the wrappers of training out of the names; a name that is there without them stays as it is."""
    plain = {name: _WRAPPERS.sub("", name) for name in stored.tensors}
    if all(name == other for name, other in plain.items()):
        return Unwrapped(stored, {})
    names = {
        name: name if other != name and other in stored.tensors else other
        for name, other in plain.items()
    }
    return Unwrapped(
        Stored(
            {names[name]: facts for name, facts in stored.tensors.items()},
            {names[name]: file for name, file in stored.files.items()},
            {plain.get(name, name): file for name, file in stored.promised.items()},
        ),
        {other: name for name, other in names.items() if name != other},
    )


def wrappers(wrapped: Mapping[str, str]) -> list[str]:
    """Return the wrappers in the names in the files."""
    matches = (part for name in wrapped.values() for part in _WRAPPERS.findall(name))
    return sorted({f"{part}." for many in matches for part in many.strip(".").split(".")})


def require_all(family: Family, config: dict[str, Any], stored: Stored) -> frozenset[str]:
    """Return the stored names of the parameters, which are all there; of a tied pair the one that is read.

    Raises:
        ModelInvalid: one is missing, or has another shape.
        UnsupportedModel: one is no float.
    """
    names, tied = set(), is_tied(config)
    for name, shape in named(family, config):
        there = stored_name(family, name, stored.tensors)
        if tied and name == embedding(family) and family.head in stored.tensors:
            _check(family.head, shape, stored)
            there = there or family.head
        if there is None:
            _refuse(family, config, written(family, name), stored)
        _check(there, shape, stored)
        names.add(there)
    return frozenset(names)


def _check(name: str, shape: Shape, stored: Stored) -> None:
    facts = stored.tensors[name]
    if facts.shape != shape:
        raise ModelInvalid(
            f"{stored.files.get(name, 'the checkpoint')}: {name} has shape {list(facts.shape)}; config.json calls for {list(shape)}"
        )
    if facts.dtype not in FLOAT_DTYPES:
        raise UnsupportedModel(
            f"{name} is of type {facts.dtype}, which is not supported; convert the weights to BF16 or F32."
        )


def _refuse(family: Family, config: dict[str, Any], name: str, stored: Stored) -> NoReturn:
    """Say why a parameter is missing."""
    _refuse_form(name, stored.tensors)
    _refuse_prefix(embedding(family), stored.tensors)
    promised, blocks = block_count(config), _blocks(family, stored.tensors)
    if blocks and max(blocks) + 1 < promised and name.startswith(f"{family.blocks}."):
        raise ModelInvalid(
            f"config.json promises {promised} blocks, the files hold {max(blocks) + 1}: {name} is missing"
        )
    whose = stored.promised.get(name) or stored.promised.get(name.partition(".")[2])
    files = {*stored.files.values()} or {"the checkpoint"}
    where = whose or (files.pop() if len(files) == 1 else f"every one of the {len(files)} files")
    raise ModelInvalid(
        f"{where} lacks {name}, which config.json calls for: stock transformers would fill it at random.",
        suggestions=("download the model again", "save it again with save_pretrained()"),
    )


def _blocks(family: Family, tensors: Collection[str]) -> set[int]:
    """Return the numbers of the blocks that any tensor is in, whatever stands before the list of blocks."""
    block = re.compile(rf"(?:^|\.){family.block_list}\.(\d{{1,5}})\.")
    return {int(match[1]) for name in tensors if (match := block.search(name))}


def _refuse_form(name: str, tensors: Collection[str]) -> None:
    """Refuse a matrix that is there in another form."""
    for ending in _QUANTISED:
        if f"{name.removesuffix('weight')}{ending}" in tensors:
            raise UnsupportedModel(
                f"{name} is quantised ({ending}); pruning needs the float checkpoint that it was made from."
            )
    fused = f"{EXPERT.split(name)[0]}gate_up_proj"
    if EXPERT.search(name) and fused in tensors:
        raise UnsupportedModel(
            f"The experts lie in one tensor ({fused}) where checkpoints of this architecture have one for each.",
            suggestions=("save the model with save_pretrained() of stock transformers",),
        )


def _refuse_prefix(known: str, tensors: Collection[str]) -> None:
    """Refuse names that all begin with something that stock transformers does not know."""
    endings = (known, known.partition(".")[2])
    if any(ending in tensors for ending in endings):
        return
    prefixes = (
        name.removesuffix(ending)
        for ending in endings
        for name in tensors
        if name.endswith(f".{ending}")
    )
    prefix = next(prefixes, None)
    if prefix is None:
        return
    what, fix = next(
        (explanation for part, explanation in _PREFIXES.items() if part in prefix),
        (
            "which stock transformers does not know",
            "rename the tensors, or save the model again with save_pretrained()",
        ),
    )
    raise ModelInvalid(
        f"The names of the tensors begin with {prefix!r}, {what}.", suggestions=(fix,)
    )
