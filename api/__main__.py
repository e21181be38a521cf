"""`python -m api`: the front end as a process."""

from __future__ import annotations

import logging
import os
import sys

import structlog
import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from api.app import create_app
from api.deps import Parts
from store import logs
from store.migrate import is_current
from store.settings import PRIVATE, Settings

SHUTDOWN_SECONDS = 3
"""Open streams are cut after this; clients resume them elsewhere."""

log = structlog.get_logger()


def main() -> int:
    """Serve until SIGTERM; return 1 where the database is not fit to be served from."""
    os.umask(PRIVATE)
    logs.configure(sys.stdout.fileno(), libraries=logging.INFO)
    settings = Settings()
    for root in settings.model_roots:
        if not root.is_dir():
            log.warning("model_root.missing", path=str(root))
    app = create_app(settings)
    fault = _database_fault(app.state.parts)
    if fault is not None:
        log.error("api.refused", reason=fault)
        return 1
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return 0


def _database_fault(parts: Parts) -> str | None:
    try:
        if is_current(parts.database):
            return None
    except SQLAlchemyError as error:
        return f"the database cannot be read ({type(error).__name__}): check SECATEUR_DATABASE_URL"
    return "the database is not at this version's schema: run `python -m store migrate` first"


if __name__ == "__main__":
    sys.exit(main())
