"""What every public class of the specification shares: frozen, closed, exact, documented, digestible."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any, get_args, get_origin

from annotated_types import MaxLen
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

MAX_FIELDS = 100
"""No object of the vocabulary has more; one that does is refused before its fields are looked at."""


class Frozen(BaseModel):
    """Immutable and exact: unknown fields, texts for numbers, NaN and infinity are refused; attribute docstrings become field descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _lengths_first(cls, data: Any) -> Any:
        """Bound lists and objects before their items are validated; a JSON list is a tuple here."""
        if not isinstance(data, dict):
            return data
        if len(data) > MAX_FIELDS:
            raise ValueError(f"an object of {len(data)} fields; {MAX_FIELDS} are allowed")
        limits = _limits(cls)
        containers = {name: value for name, value in data.items() if isinstance(value, list | dict)}
        for name, value in containers.items():
            if len(value) > limits.get(name, len(value)):
                raise ValueError(f"{name}: {len(value)} items; {limits[name]} are allowed")
        lists = {name: tuple(value) for name, value in containers.items() if name in _tuples(cls)}
        return {**data, **lists}


@cache
def _limits(model: type[Frozen]) -> dict[str, int]:
    """Return the largest length of every field that has one."""
    return {
        name: limit.max_length
        for name, field in model.model_fields.items()
        for limit in field.metadata
        if isinstance(limit, MaxLen)
    }


@cache
def _tuples(model: type[Frozen]) -> frozenset[str]:
    return frozenset(name for name, field in model.model_fields.items() if _is_tuple(field))


def _is_tuple(field: FieldInfo) -> bool:
    kinds = (field.annotation, *get_args(field.annotation))
    return any(get_origin(kind) is tuple for kind in kinds)


def digest(model: BaseModel) -> str:
    """Return `sha256:<hex>` of the canonical JSON: defaults filled in, keys sorted."""
    canonical = json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
