"""JSON as RFC 8259 has it: bounded, no duplicate keys, no NaN, no lone surrogates, a declared content type."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from api.problems import Problem

MAX_VALUES = 5_000
"""Keys and values of a body: more than any sound one has, few enough to check and explain each."""
_MARKS = (b"{", b"[", b",", b":")


class StrictRequest(Request):
    """Answers `json()` strictly; every fault is a `JSONDecodeError`."""

    async def json(self) -> Any:
        """Return the parsed body."""
        return parse(await self.body())


class StrictRoute(APIRoute):
    """Refuses bodies of another content type and parses the rest strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            request = StrictRequest(request.scope, request.receive)
            if self.body_field is not None:
                _require_json(request)
                _require_few(await request.body())
            return await handler(request)

        return strict


def parse(body: bytes) -> Any:
    """Parse one JSON document.

    Raises:
        json.JSONDecodeError: it is none, or one that readers understand differently.
    """
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_finite,
        )
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except UnicodeError:
        raise json.JSONDecodeError("not valid Unicode text in UTF-8", "", 0) from None
    except ValueError as error:
        raise json.JSONDecodeError(str(error)[:200], "", 0) from None
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is beyond every number that is stored")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("an object names the same key twice")
    return result


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _require_few(body: bytes) -> None:
    """Bound what parsing, checking and explaining can cost: every value but the first follows a mark."""
    values = sum(map(body.count, _MARKS))
    if values > MAX_VALUES:
        raise Problem(
            "VALIDATION_FAILED",
            f"The body has some {values} keys and values; {MAX_VALUES} are allowed.",
        )


def _require_json(request: Request) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Problem(
            "CONTENT_TYPE_UNSUPPORTED",
            "This route reads `Content-Type: application/json` only.",
            headers={"Accept": "application/json"},
        )
