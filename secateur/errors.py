"""What the client raises.

SecateurError
├── Usage                  an argument of the command line is wrong; nothing was asked of a server
├── Interrupted            Ctrl-C ended the command; what was submitted goes on
├── Ambiguous              a name, or the beginning of an id, fits several
├── ConfigurationError     no server or no key is known
├── ConnectionFailed       the server could not be reached, or went away
├── ApiError               the server answered with a problem
│   ├── Unauthenticated    401
│   ├── Forbidden          403
│   ├── NotFound           404
│   ├── Conflict           409
│   ├── Invalid            400, 413, 415, 422
│   └── Unavailable        429, 500, 502, 503, 504
├── JobFailed              the job ended failed or cancelled
├── WaitTimeout            the job did not end in time
└── DownloadError          a file is not what the manifest says, or has no place to go
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SecateurError(Exception):
    """The root of the tree."""

    def __init__(
        self, detail: str, *, code: str = "CLIENT", suggestions: tuple[str, ...] = ()
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.suggestions = suggestions


class Usage(SecateurError):
    """An argument of the command line is wrong; nothing was asked of a server."""


class Interrupted(SecateurError):
    """Ctrl-C ended the command."""


class Ambiguous(SecateurError):
    """A name, or the beginning of an id, fits several."""


class ConfigurationError(SecateurError):
    """No server or no key is known."""


class ConnectionFailed(SecateurError):
    """The server could not be reached, or went away, however often it was tried."""


class ApiError(SecateurError):
    """The server answered with a problem (RFC 9457); the fields are the problem's."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(
            str(problem.get("detail") or problem.get("title") or f"HTTP {status}"),
            code=str(problem.get("code") or f"HTTP_{status}"),
            suggestions=tuple(map(str, problem.get("suggestions") or ())),
        )
        self.status = status
        self.title = problem.get("title")
        self.error_class = problem.get("class")
        self.retryable = bool(problem.get("retryable", False))
        self.request_id = problem.get("request_id")
        self.errors = tuple(problem.get("errors") or ())


class Unauthenticated(ApiError):
    """The key is missing, unknown, revoked or expired."""


class Forbidden(ApiError):
    """The key lacks a scope, or the operator forbids what was asked."""


class NotFound(ApiError):
    """Nothing of this name in the key's project."""


class Conflict(ApiError):
    """The job's status does not allow it, or a name is taken."""


class Invalid(ApiError):
    """The request is wrong; `errors` says where."""


class Unavailable(ApiError):
    """The server cannot answer now."""


class JobFailed(SecateurError):
    """The job ended failed or cancelled; `status` says which."""

    def __init__(
        self, detail: str, *, code: str, status: str, suggestions: tuple[str, ...] = ()
    ) -> None:
        super().__init__(detail, code=code, suggestions=suggestions)
        self.status = status


class WaitTimeout(SecateurError):
    """The job did not end in the time given; it goes on."""


class DownloadError(SecateurError):
    """A file is not what the manifest says, or has no place to go."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Unavailable,
    500: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def api_error(status: int, problem: Mapping[str, Any]) -> ApiError:
    """Return the class that fits the status."""
    return _BY_STATUS.get(status, ApiError)(status, problem)
