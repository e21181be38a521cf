"""What routes are given: the parts of the process, and whose key is calling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import anyio
from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.requests import Request

from api.broker_probe import BrokerProbe
from api.hub_calls import HubCalls
from api.hub_probe import HubProbe
from api.problems import Problem
from store import keys
from store.artifact_store import ArtifactStore
from store.broker import Doorbell
from store.drafts import Drafts
from store.errors import KeyInvalid
from store.session import Database
from store.settings import Settings

MAX_WATCHING_THREADS = 8
"""Threads that serve all long polls and event streams together; other requests have the default pool."""

MAX_INSPECTING_THREADS = 4
"""Threads that read local models for those who inspect them."""

MAX_EXAMINING_PROCESSES = 2
"""Uploads that are looked at together; further ones wait."""

bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer pk_live_...`")


@dataclass(frozen=True)
class Parts:
    """Everything that lives as long as the process."""

    settings: Settings
    database: Database
    artifacts: ArtifactStore
    drafts: Drafts
    doorbell: Doorbell
    broker: BrokerProbe
    hub: HubProbe = field(default_factory=HubProbe)
    hub_calls: HubCalls = field(default_factory=HubCalls)
    watching: anyio.CapacityLimiter = field(
        default_factory=lambda: anyio.CapacityLimiter(MAX_WATCHING_THREADS)
    )
    inspecting: anyio.CapacityLimiter = field(
        default_factory=lambda: anyio.CapacityLimiter(MAX_INSPECTING_THREADS)
    )
    examining: anyio.CapacityLimiter = field(
        default_factory=lambda: anyio.CapacityLimiter(MAX_EXAMINING_PROCESSES)
    )


@dataclass(frozen=True)
class Caller:
    """The key behind a request."""

    key_id: str
    project: str


def parts_of(request: Request) -> Parts:
    parts = request.app.state.parts
    assert isinstance(parts, Parts)
    return parts


PartsDep = Annotated[Parts, Depends(parts_of)]


def caller_of(
    scopes: SecurityScopes,
    parts: PartsDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Authenticate, then check that the key carries every scope of the route."""
    if credentials is None:
        raise unauthenticated("Send an API key: `Authorization: Bearer pk_live_...`.")
    try:
        with parts.database.read() as session:
            key, stale = keys.authenticate(session, credentials.credentials)
            caller, granted = Caller(key.id, key.project), set(key.scopes)
        if stale:
            with parts.database.write() as session:
                keys.note_use(session, caller.key_id)
    except KeyInvalid as error:
        raise unauthenticated(str(error)) from None
    missing = [scope for scope in scopes.scopes if scope not in granted]
    if missing:
        raise Problem("SCOPE_MISSING", f"This key lacks the scope {', '.join(missing)}.")
    return caller


def unauthenticated(detail: str) -> Problem:
    return Problem("UNAUTHENTICATED", detail, headers={"WWW-Authenticate": "Bearer"})


Reader = Annotated[Caller, Security(caller_of, scopes=["jobs:read"])]
Writer = Annotated[Caller, Security(caller_of, scopes=["jobs:write"])]
Downloader = Annotated[Caller, Security(caller_of, scopes=["artifacts:read"])]
AnyKey = Annotated[Caller, Security(caller_of, scopes=[])]
