"""Every exception that a request can meet, as a problem."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.errors import FieldError, Problem, problem_response
from api.validation import validation_problem
from pruning_core.errors import PruningError
from store.errors import StoreError

log = structlog.get_logger()

_CODE_OF_STATUS = {
    400: "MALFORMED_JSON",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "BODY_TOO_LARGE",
}


def install(app: FastAPI) -> None:
    """Register the handlers; what none of them knows is a crash that the middleware answers."""
    app.exception_handler(Problem)(_problem)
    app.exception_handler(HTTPException)(_framework)
    app.exception_handler(RequestValidationError)(_validation)
    app.exception_handler(PruningError)(_refused)
    app.exception_handler(StoreError)(_store)
    for error in (OperationalError, InterfaceError, PoolTimeout):
        app.exception_handler(error)(_database_away)


async def _problem(request: Request, error: Problem) -> Response:
    return problem_response(request, error)


async def _framework(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    code = _CODE_OF_STATUS.get(status, status.name)
    detail = {
        HTTPStatus.NOT_FOUND: f"There is no {request.url.path}.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible here.",
    }.get(status, str(error.detail))
    problem = Problem(code, detail, status=status, headers=error.headers)
    return problem_response(request, problem)


async def _validation(request: Request, error: RequestValidationError) -> Response:
    return problem_response(request, validation_problem(error))


async def _refused(request: Request, error: PruningError) -> Response:
    pointer = [FieldError(pointer=error.pointer, detail=error.message)] if error.pointer else []
    status = None if error.error_class == "user" or error.retryable else 500
    problem = Problem(
        error.code,
        error.message,
        status=status,
        errors=tuple(pointer),
        suggestions=error.suggestions,
    )
    return problem_response(request, problem)


async def _store(request: Request, error: StoreError) -> Response:
    return problem_response(request, Problem(error.code, str(error)))


async def _database_away(request: Request, error: Exception) -> Response:
    log.warning("database.unavailable", error=type(error).__name__)
    problem = Problem("SERVICE_UNAVAILABLE", "The database does not answer; try again shortly.")
    return problem_response(request, problem)
