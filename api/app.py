"""The FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from api import openapi, problem_handlers
from api.broker_probe import BrokerProbe
from api.deps import Parts
from api.middleware import BodyLimit, HeadLimit, RequestContext
from api.routes import artifacts, events, files, health, jobs, methods, models, presets, tasks
from api.uploads import FORM_OVERHEAD
from store.backends import artifacts_of, drafts_of
from store.broker import Doorbell
from store.session import Database
from store.settings import Settings

RESOURCES = (
    jobs,
    events,
    artifacts,
    files,
    methods,
    models,
    tasks,
    presets,
    health,
)
"""In the order of the OpenAPI document."""


def create_app(settings: Settings) -> FastAPI:
    """Build the application; it connects to the database at the first request, not here."""
    parts = Parts(
        settings=settings,
        database=Database(settings.database_url, api_timeouts=True),
        artifacts=artifacts_of(settings),
        drafts=drafts_of(settings),
        doorbell=Doorbell(settings),
        broker=BrokerProbe(settings.broker_url),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await to_thread.run_sync(parts.drafts.sweep)
        yield
        parts.doorbell.close()
        parts.database.dispose()

    app = FastAPI(
        title="Secateur",
        summary="Pruning as a service for large language models",
        version=version("secateur"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestContext),
            Middleware(HeadLimit),
            Middleware(
                BodyLimit,
                limit=settings.max_body_bytes,
                larger={"/v1/files": settings.max_file_bytes + FORM_OVERHEAD},
            ),
        ],
    )
    app.state.parts = parts
    app.state.routes = []
    problem_handlers.install(app)
    openapi.install(app)
    for module in RESOURCES:
        app.include_router(module.router)
        app.state.routes += [route for route in module.router.routes if isinstance(route, APIRoute)]
    return app
