"""Every exception that a request can meet, as a problem."""

from __future__ import annotations

import errno
from http import HTTPStatus

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.problems import STATUS_OF_CODE, FieldError, Problem, problem_response
from api.validation import validation_problem
from pruning_core.errors import NO_SPACE, PruningError
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
    app.exception_handler(OSError)(_disk_full)
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
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request)) or headers.get("Allow", "")
    problem = Problem(code, detail, status=status, headers=headers)
    return problem_response(request, problem)


def _allowed(request: Request) -> list[str]:
    """Return the methods of every route with this path: the framework's own answer knows the first route alone."""
    routes = [
        route for route in request.app.state.routes if route.path_regex.match(request.url.path)
    ]
    return sorted({method for route in routes for method in route.methods})


async def _validation(request: Request, error: RequestValidationError) -> Response:
    return problem_response(request, validation_problem(error))


async def _refused(request: Request, error: PruningError) -> Response:
    pointer = [FieldError(pointer=error.pointer, detail=error.message)] if error.pointer else []
    known = error.error_class == "user" or error.code in STATUS_OF_CODE
    status = None if known else HTTPStatus.INTERNAL_SERVER_ERROR
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


async def _disk_full(request: Request, error: OSError) -> Response:
    if error.errno not in NO_SPACE:
        raise error
    log.error("disk.full", error=str(error))
    problem = Problem(
        "DISK_FULL",
        "The service's disk is full: nothing was stored.",
        suggestions=("try again later", "ask the operator for more space"),
    )
    return problem_response(request, problem)


async def _database_away(request: Request, error: DBAPIError | PoolTimeout) -> Response:
    if isinstance(error, DBAPIError) and _is_full(error):
        return await _disk_full(request, OSError(errno.ENOSPC, str(error.orig)))
    log.warning("database.unavailable", error=type(error).__name__)
    problem = Problem("SERVICE_UNAVAILABLE", "The database does not answer; try again shortly.")
    return problem_response(request, problem)


def _is_full(error: DBAPIError) -> bool:
    """Tell whether the database's disk is: SQLite says it, PostgreSQL has a code for it."""
    return "disk is full" in str(error.orig) or getattr(error.orig, "sqlstate", None) == "53100"
