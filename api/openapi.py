"""OpenAPI with the problems that every route can answer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import PROBLEM_JSON, ProblemBody

_ANY = {500: "The server failed", 503: "A part of the service is away; see `Retry-After`"}
_KEYED = {401: "No valid key", 403: "The key lacks a scope, or the operator forbids it"}
_INPUT = {422: "The request is understood, and wrong"}
_BODY = {400: "Malformed", 413: "Body too large", 415: "Of a type that is not read here"}
_ID = {404: "Not in this project"}


def install(app: FastAPI) -> None:
    """Make `/openapi.json` list problems as `application/problem+json`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
            _add_problems(schema)
            app.openapi_schema = schema
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
