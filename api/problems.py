"""Problems (RFC 9457): the one shape of every 4xx and 5xx answer."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.requests import Request

from pruning_core.printable import MESSAGE, shown_document

PROBLEM_JSON = "application/problem+json"
RETRY_SECONDS = 5

STATUS_OF_CODE = {
    "MALFORMED_JSON": HTTPStatus.BAD_REQUEST,
    "BODY_INCOMPLETE": HTTPStatus.BAD_REQUEST,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "SCOPE_MISSING": HTTPStatus.FORBIDDEN,
    "MODEL_NOT_ALLOWED": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "METHOD_NOT_ALLOWED": HTTPStatus.METHOD_NOT_ALLOWED,
    "STATE_CONFLICT": HTTPStatus.CONFLICT,
    "PRESET_EXISTS": HTTPStatus.CONFLICT,
    "FILE_IN_USE": HTTPStatus.CONFLICT,
    "BODY_TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "URI_TOO_LONG": HTTPStatus.REQUEST_URI_TOO_LONG,
    "HEADERS_TOO_LARGE": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "CONTENT_TYPE_UNSUPPORTED": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "RANGE_NOT_SATISFIABLE": HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    "VALIDATION_FAILED": HTTPStatus.UNPROCESSABLE_ENTITY,
    "DIGEST_MISMATCH": HTTPStatus.UNPROCESSABLE_ENTITY,
    "IDEMPOTENCY_CONFLICT": HTTPStatus.UNPROCESSABLE_ENTITY,
    "CURSOR_INVALID": HTTPStatus.UNPROCESSABLE_ENTITY,
    "CHECK_TIMED_OUT": HTTPStatus.UNPROCESSABLE_ENTITY,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
    "DISK_FULL": HTTPStatus.INSUFFICIENT_STORAGE,
    "HUB_UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "SERVICE_UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""Codes of the service itself; a user error of the core that is not listed answers 422."""


CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "Not in the state that the resource is in"}
}
FILE: dict[int | str, dict[str, Any]] = {
    304: {"description": "`If-None-Match` names this file"},
    307: {"description": "The artifact store sends the file itself, from this URL"},
    416: {"description": "No byte of the range is there"},
}
"""What some routes declare beside the problems that all of their kind can answer."""


class FieldError(BaseModel):
    """One field at fault: `pointer` into the body, or the name of a query parameter or header."""

    pointer: str | None = Field(default=None, examples=["/prune/sparsity"])
    parameter: str | None = None
    detail: str
    allowed: list[Any] | None = None


class ProblemBody(BaseModel):
    """RFC 9457 problem details; `code` is stable, the texts may change."""

    type: str = Field(examples=["urn:secateur:problem:validation-failed"])
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(examples=["VALIDATION_FAILED"])
    error_class: Literal["user", "system"] = Field(alias="class")
    retryable: bool
    request_id: str | None
    errors: list[FieldError]
    suggestions: list[str]


class Problem(Exception):
    """Raised anywhere in a request; answered as `application/problem+json`."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        errors: tuple[FieldError, ...] = (),
        suggestions: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status or int(
            STATUS_OF_CODE.get(code, HTTPStatus.UNPROCESSABLE_ENTITY),
        )
        self.errors = errors
        self.suggestions = suggestions
        self.headers = dict(headers or {})


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """Render a problem for the request that met it."""
    is_system = problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    body = {
        "type": f"urn:secateur:problem:{problem.code.lower().replace('_', '-')}",
        "title": problem.code.replace("_", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        "instance": request.url.path,
        "code": problem.code,
        "class": "system" if is_system else "user",
        "retryable": problem.status == HTTPStatus.SERVICE_UNAVAILABLE,
        "request_id": getattr(request.state, "request_id", None),
        "errors": [error.model_dump(exclude_none=True) for error in problem.errors],
        "suggestions": list(problem.suggestions),
    }
    headers = problem.headers
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    printable = shown_document(body, MESSAGE)
    return JSONResponse(printable, problem.status, headers, media_type=PROBLEM_JSON)
