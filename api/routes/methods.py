"""The catalogue of pruning methods."""

from __future__ import annotations

from difflib import get_close_matches

from fastapi import APIRouter

from api import schemas
from api.deps import AnyKey
from api.problems import Problem
from pruning_core.spec.methods import METHODS

router = APIRouter(prefix="/v1/methods", tags=["discovery"])

_METHODS = {
    method.model_fields["name"].default: schemas.Method(
        name=method.model_fields["name"].default,
        kind=method.kind,
        summary=method.summary,
        source=method.source,
        needs_calibration=method.needs_calibration,
        patterns=list(method.patterns),
        default_pattern=method.default_pattern,
        output=method.output,
        params=method.model_json_schema(),
    )
    for method in METHODS
}


@router.get("", response_model=schemas.MethodList)
def list_methods(_: AnyKey) -> schemas.MethodList:
    """Return every method."""
    return schemas.MethodList(data=list(_METHODS.values()))


@router.get("/{name}", response_model=schemas.Method)
def read_method(name: str, _: AnyKey) -> schemas.Method:
    """Return one method."""
    if name not in _METHODS:
        near = get_close_matches(name[:64], _METHODS, n=1)
        raise Problem(
            "NOT_FOUND",
            f"There is no such method; there are: {', '.join(_METHODS)}.",
            suggestions=tuple(f"did you mean `{match}`?" for match in near),
        )
    return _METHODS[name]
