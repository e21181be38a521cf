"""What the exit status of the command line says."""

from __future__ import annotations

from enum import IntEnum

from secateur.errors import (
    Ambiguous,
    ApiError,
    ConfigurationError,
    ConnectionFailed,
    Interrupted,
    JobFailed,
    SecateurError,
    Unauthenticated,
    Usage,
)


class ExitCode(IntEnum):
    """One status per cause; documented in docs/cli.md."""

    OK = 0
    ERROR = 1
    USAGE = 2
    REFUSED = 3
    FAILED = 4
    GATE_MISSED = 5
    CANCELLED = 6
    UNREACHABLE = 7
    UNAUTHENTICATED = 8
    INTERRUPTED = 130


_CONFIGURATION = {"NO_SERVER": ExitCode.UNREACHABLE, "NO_KEY": ExitCode.UNAUTHENTICATED}


def of(error: SecateurError) -> ExitCode:
    """Return the status that an error ends the command line with."""
    match error:
        case Usage():
            return ExitCode.USAGE
        case Interrupted():
            return ExitCode.INTERRUPTED
        case Unauthenticated():
            return ExitCode.UNAUTHENTICATED
        case Ambiguous():
            return ExitCode.REFUSED
        case JobFailed():
            return _of_job(error)
        case ApiError():
            return _of_answer(error)
        case ConnectionFailed():
            return ExitCode.UNREACHABLE
        case ConfigurationError():
            return _CONFIGURATION.get(error.code, ExitCode.ERROR)
    return ExitCode.ERROR


def _of_job(error: JobFailed) -> ExitCode:
    if error.status == "cancelled":
        return ExitCode.CANCELLED
    return ExitCode.GATE_MISSED if error.code == "QUALITY_GATE_FAILED" else ExitCode.FAILED


def _of_answer(error: ApiError) -> ExitCode:
    if error.status in (429, 502, 503, 504):
        return ExitCode.UNREACHABLE
    return ExitCode.ERROR if error.status >= 500 else ExitCode.REFUSED
