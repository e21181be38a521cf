"""What is asked of the hub, and what of a reply is believed: bounded in bytes and time, and checked before it is used.

A name or commit of a reply becomes part of paths here, so a commit is 40 hex digits and a name stays in its folder.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

from pruning_core import settings

ANSWER_SECONDS = 10.0
"""Without a byte for so long the hub counts as away."""
DESCRIPTION_SECONDS = 60.0
MAX_DESCRIPTION_BYTES = 32 << 20
MAX_NAMES = 200_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TAG = re.compile(r'(W/)?"?[A-Za-z0-9_+=:-][A-Za-z0-9_+=:.-]{0,127}"?')
_TOLD = 1 << 12
"""Of a refusal, for the message."""


class BrokenReply(OSError):
    """The hub answers, and not as a hub does."""


@dataclass(frozen=True)
class Described:
    """One commit of a repository, and the names of its files."""

    commit: str
    names: tuple[str, ...]


def describe(
    kind: Literal["models", "datasets"], repo: str, revision: str | None, *, deadline: float
) -> Described:
    """Return what a revision means now.

    Args:
        kind: Of repository.
        repo: `owner/name`.
        revision: Branch, tag or commit; None for the default branch.
        deadline: By the monotonic clock.

    Raises:
        BrokenReply: the answer is none, too long, or takes too long.
        Exception: as the hub's library raises it for a refusal.
    """
    at = f"/revision/{quote(revision, safe='')}" if revision else ""
    url = f"{settings.hub_address()}/api/{kind}/{repo}{at}"
    raw, _ = fetched(url, MAX_DESCRIPTION_BYTES + 1, deadline=deadline)
    if len(raw) > MAX_DESCRIPTION_BYTES:
        raise BrokenReply(f"its description has more than {MAX_DESCRIPTION_BYTES} bytes")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise BrokenReply("its description is no JSON") from None
    return _checked(content)


def fetched(
    url: str, count: int, *, deadline: float, headers: Mapping[str, str] | None = None
) -> tuple[bytes, Mapping[str, str]]:
    """Return the first bytes that the hub sends, no more than `count`, and the headers of its reply.

    Raises:
        BrokenReply: it takes longer than until `deadline`.
        Exception: as the hub's library raises it for a refusal.
    """
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # which has no __all__

    asked = build_hf_headers(headers={"Accept-Encoding": "identity", **(headers or {})})
    with session().stream("GET", url, headers=asked, timeout=ANSWER_SECONDS) as response:
        refused = response.status_code >= 400
        content = _read(response, _TOLD if refused else count, deadline)
        if refused:
            _raise(response, content)
        return content, response.headers


def _read(response: Any, count: int, deadline: float) -> bytes:
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) >= count:
            break
        if time.monotonic() > deadline:
            raise BrokenReply("its answer takes too long")
    return bytes(content[:count])


def _raise(response: Any, content: bytes) -> None:
    """Raise what the hub's library makes of a refusal, of which no more is read than `content`."""
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    headers = {name: value for name, value in response.headers.items() if name.startswith("x-")}
    short = type(response)(
        response.status_code, headers=headers, content=content, request=response.request
    )
    hf_raise_for_status(short)


@functools.cache
def _install() -> None:
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def make() -> Any:
        client = default_client_factory()
        hooks = client.event_hooks
        client.event_hooks = {**hooks, "response": [*hooks.get("response", ()), _check_headers]}
        return client

    set_client_factory(make)


def session() -> Any:
    """Return the HTTP client of the hub's library; every reply to it, and to all of the library, is checked."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    _install()
    return get_session()


def _check_headers(response: Any) -> None:
    """Refuse a reply whose commit or tag is none: the library makes paths of its cache from both."""
    if not str(response.url).startswith(settings.hub_address()):
        return
    commit = response.headers.get("X-Repo-Commit")
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise BrokenReply("it names a commit that is none")
    for name in ("ETag", "X-Linked-ETag"):
        tag = response.headers.get(name)
        if tag is not None and (not _TAG.fullmatch(tag) or ".." in tag):
            raise BrokenReply("it tags a file with what is no tag")


def _checked(content: Any) -> Described:
    if not isinstance(content, dict):
        raise BrokenReply("its description is no JSON object")
    commit, siblings = content.get("sha"), content.get("siblings") or []
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise BrokenReply("its description names no commit")
    if not isinstance(siblings, list) or len(siblings) > MAX_NAMES:
        raise BrokenReply("its description lists no files")
    return Described(commit, tuple(_name(sibling) for sibling in siblings))


def _name(sibling: Any) -> str:
    name = sibling.get("rfilename") if isinstance(sibling, dict) else None
    if not isinstance(name, str) or not _is_inside(name):
        raise BrokenReply("its description lists a file whose name is none")
    return name


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    plain = name.isprintable() and "\\" not in name and len(name) <= 1024
    return plain and not PurePosixPath(name).is_absolute() and not {"", ".", ".."} & set(parts)


@contextmanager
def no_other_error() -> Iterator[None]:
    """Turn what the hub's library raises over a malformed reply into `BrokenReply`."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        if isinstance(error, OSError):
            raise
        raise BrokenReply(f"its answer cannot be understood ({type(error).__name__})") from error
