"""Log lines of the worker: JSON on stderr, one object a line."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging() -> None:
    """Send our events, and the warnings of libraries, to stderr."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
