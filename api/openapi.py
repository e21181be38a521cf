"""OpenAPI with the problems that every route can answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import PROBLEM_JSON, ProblemBody

_ANY = {
    413: "Body too large",
    414: "Path and query too long",
    431: "Headers too large",
    500: "The server failed",
    503: "A part of the service is away; see `Retry-After`",
}
_KEYED = {
    401: "No valid key",
    403: "The key lacks a scope, or the operator forbids it",
    507: "The service's disk is full",
}
_INPUT = {422: "The request is understood, and wrong"}
_BODY = {400: "Malformed", 415: "Of a type that is not read here"}
_ID = {404: "Not in this project"}
_REF = "#/components/schemas/"


def install(app: FastAPI) -> None:
    """Make `/openapi.json` list problems as `application/problem+json`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
            _add_problems(schema)
            app.openapi_schema = _named(schema)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _add_problems(schema: dict[str, Any]) -> None:
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components.update(problem.pop("$defs", {}))
    components["Problem"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    for path, item in schema["paths"].items():
        for operation in item.values():
            operation["responses"].pop("422", None)
            for status, response in operation["responses"].items():
                if int(status) >= HTTPStatus.BAD_REQUEST:
                    response.update(_response(response["description"]))
            for status, description in _problems_of(path, operation).items():
                operation["responses"].setdefault(str(status), _response(description))


def _problems_of(path: str, operation: dict[str, Any]) -> dict[int, str]:
    return {
        **_ANY,
        **(_KEYED if "security" in operation else {}),
        **(_INPUT if operation.get("parameters") or "requestBody" in operation else {}),
        **(_BODY if "requestBody" in operation else {}),
        **(_ID if "{" in path else {}),
    }


def _response(description: str) -> dict[str, Any]:
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    """Give every schema a name of its own, its only title: generated clients make classes of titles.

    They have no defaults for objects either, and leave out what has one; the fields of such objects state their own.
    """
    schema = {**_renamed(schema), "info": schema["info"]}
    components = schema["components"]["schemas"]
    named = {name.replace("-", ""): component for name, component in components.items()}
    schema["components"]["schemas"] = {
        name: {**component, "title": name} for name, component in named.items()
    }
    return schema


def _idle(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and isinstance(value, dict)
    )


def _renamed(node: Any) -> Any:
    """Return a part of the document without titles and defaults of objects, its references as `_named` names them."""
    match node:
        case str():
            return node.replace("-", "") if node.startswith(_REF) else node
        case list():
            return [_renamed(item) for item in node]
        case dict():
            return {key: _renamed(value) for key, value in node.items() if not _idle(key, value)}
    return node
