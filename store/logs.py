"""Log lines of every process: one JSON object a line, written whole or not at all."""

from __future__ import annotations

import fcntl
import io
import logging
import os
from contextlib import suppress

import structlog
from structlog.typing import EventDict, WrappedLogger

from pruning_core.printable import shown

MAX_VALUE = 20_000
"""Characters of one value: a trace, not a whole checkpoint's names."""


class Lines(io.TextIOBase):
    """Writes each line in one call to the system, at the end of whatever others wrote; a full disk ends no job."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        with suppress(OSError):  # a pipe has no end
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)

    def write(self, text: str) -> int:
        """Write a line that carries its end."""
        with suppress(OSError):
            os.write(self._descriptor, text.encode(errors="backslashreplace"))
        return len(text)


def configure(descriptor: int, *, libraries: int) -> None:
    """Send our events, and what libraries log from a level on, to a file through the same renderer."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _bounded,
    ]
    lines = Lines(descriptor)
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(lines),  # type: ignore[arg-type]
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(level=libraries, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _bounded(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        key: shown(value, MAX_VALUE) if isinstance(value, str) else value
        for key, value in event.items()
    }
