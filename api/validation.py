"""Pydantic's errors in the words of a problem: where in the document, what, and what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from api.problems import FieldError, Problem
from api.schemas import JobFilters, JobSubmission

MAX_ERRORS = 20
MAX_DETAIL = 400
_QUOTED = re.compile(r"'([^']*)'")


def validation_problem(exception: RequestValidationError) -> Problem:
    """Return the 422 (400 where the body is no JSON at all) that explains every error."""
    errors = exception.errors()
    if errors and errors[0]["type"] == "json_invalid":
        return Problem("MALFORMED_JSON", f"The body is not valid JSON: {errors[0]['ctx']['error']}")
    fields = tuple(_field_error(error, exception.body) for error in errors[:MAX_ERRORS])
    hints = (hint for error in errors[:MAX_ERRORS] for hint in _hints(error))
    where = fields[0].pointer or fields[0].parameter or "the body"
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    return Problem(
        "VALIDATION_FAILED",
        f"{where}: {fields[0].detail}{more}",
        errors=fields,
        suggestions=tuple(dict.fromkeys(hints)),
    )


def _field_error(error: Mapping[str, Any], body: Any) -> FieldError:
    source, *path = error["loc"]
    allowed = _allowed(error)
    detail = _detail(error)[:MAX_DETAIL]
    if source == "body":
        return FieldError(
            pointer=_pointer(body, path, keep_last=error["type"] == "missing"),
            detail=detail,
            allowed=allowed,
        )
    return FieldError(parameter=".".join(map(str, path)), detail=detail, allowed=allowed)


def _pointer(body: Any, path: Sequence[str | int], *, keep_last: bool) -> str:
    """Return the JSON pointer of pydantic's location, which also names union tags and expanded shorthands."""
    parts: list[str] = []
    for position, step in enumerate(path):
        is_last = position == len(path) - 1
        if _leads_on(body, step):
            body = body[step]
        elif not (keep_last and is_last and isinstance(body, dict)):
            continue
        parts.append(str(step)[:MAX_DETAIL].replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{part}" for part in parts)


def _leads_on(body: Any, step: str | int) -> bool:
    if isinstance(body, dict):
        return step in body
    return isinstance(body, list) and isinstance(step, int) and step < len(body)


def _detail(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "required, but missing"
        case "union_tag_invalid":
            tag = str(error["ctx"]["tag"])[:64]
            return f"{tag!r} is none of {error['ctx']['expected_tags']}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _allowed(error: Mapping[str, Any]) -> list[Any] | None:
    context = error.get("ctx", {})
    expected = context.get("expected_tags") or context.get("expected")
    return _QUOTED.findall(expected) if isinstance(expected, str) else None


def _hints(error: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was probably meant by an unknown field or an unknown choice."""
    if error["type"] == "extra_forbidden":
        places = _places("query" if error["loc"][0] == "query" else "body")
        for name in get_close_matches(str(error["loc"][-1])[:64], places, n=1, cutoff=0.7):
            yield "did you mean " + " or ".join(f"`{place}`" for place in places[name]) + "?"
    elif error["type"] == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])[:64]
        for name in get_close_matches(tag, _allowed(error) or [], n=1, cutoff=0.6):
            yield f"did you mean `{name}`?"


@cache
def _places(source: str) -> dict[str, tuple[str, ...]]:
    """Map each field name of the vocabulary to the dotted places where it may stand."""
    model: type[BaseModel] = JobFilters if source == "query" else JobSubmission
    schema = model.model_json_schema()
    places: dict[str, tuple[str, ...]] = {}
    for place in _walk(schema, schema.get("$defs", {}), ""):
        name = place.rpartition(".")[2]
        places[name] = tuple(dict.fromkeys((*places.get(name, ()), place)))
    return places


def _walk(node: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[str]:
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]]
    for name, child in node.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from _walk(child, definitions, f"{prefix}{name}.")
    for branch in (*node.get("oneOf", ()), *node.get("anyOf", ()), *node.get("allOf", ())):
        yield from _walk(branch, definitions, prefix)
    if isinstance(node.get("items"), dict):
        yield from _walk(node["items"], definitions, prefix)
