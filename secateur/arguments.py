"""What people type, as what the server takes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer

from secateur import quantities
from secateur.errors import Usage

_N_OF_M = re.compile(r"^(?P<n>\d{1,4}):(?P<m>\d{1,4})$")
_GATE = re.compile(r"^(?P<metric>[\w.:\-]+)\s*(?P<sign><=|>=)\s*(?P<bound>\S+)$")
_LABEL = re.compile(r"^(?P<key>[^=]+)=(?P<value>.*)$", re.DOTALL)
_HUB_LIKE = re.compile(r"^[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?(@[\w.\-/]+)?$")
_HUB_PAGE = re.compile(
    r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>[\w.\-]+(?:/[\w.\-]+)?)(?:/(?:tree|blob)/(?P<revision>[^/]+).*)?/?$"
)
_HUB_SLIP = re.compile(r"^(?:hf|huggingface)(?::/{0,3}|/)(?P<rest>[A-Za-z0-9].*)$", re.IGNORECASE)


def model_ref(model: str, option: str) -> str:
    """Return what the server takes: `hf://org/name`, or `file:///path` of a path that there is here.

    Raises:
        Usage: it is neither; says what was probably meant.
    """
    if model.startswith(("hf://", "file:///")):
        return model
    if "://" not in model:
        path = Path(model).expanduser()
        if path.exists():
            return path.absolute().as_uri()
    meant = _hub_meant(model)
    if "://" in model or _HUB_SLIP.match(model):
        raise _not_a_model(option, f"{model} is no model", meant)
    raise _not_a_model(
        option, f"no such file or folder: {Path(model).expanduser().absolute()}", meant
    )


def _hub_meant(model: str) -> str | None:
    """Return the reference on the hub that was probably meant."""
    page, slip = _HUB_PAGE.match(model), _HUB_SLIP.match(model)
    if page is not None:
        return f"hf://{page['repo']}" + (f"@{page['revision']}" if page["revision"] else "")
    if slip is not None:
        return f"hf://{slip['rest']}"
    is_file = model.lower().endswith((".gguf", ".safetensors"))
    return f"hf://{model}" if _HUB_LIKE.match(model) and not is_file else None


def _not_a_model(option: str, wrong: str, meant: str | None) -> Usage:
    forms = (
        "a model is hf://org/name, hf://org/name@revision, or a path",
        "a path on the server's machine that is none here is file:///path",
    )
    hint = f"; did you mean {meant}?" if meant else ""
    return Usage(f"{option}: {wrong}{hint}", code="NO_SUCH_MODEL", suggestions=forms)


def share(text: str | None, option: str) -> float | None:
    """Return a share; at a terminal a number without a percent sign is a question.

    Raises:
        Usage: it is none.
    """
    if text is None:
        return None
    try:
        return quantities.share(text)
    except quantities.Unclear as error:
        if sys.stdin.isatty() and sys.stderr.isatty():
            question = f"{option} {text}: did you mean {text}%, which is {error.percent:g}?"
            if typer.confirm(question, err=True):
                return error.percent
        raise bad(option, f"{text!r}: {error}") from None
    except ValueError as error:
        raise bad(option, str(error)) from None


def number(text: str | None, parse: Callable[[str], int], option: str) -> int | None:
    """Return a number, None where none was given.

    Raises:
        Usage: it is none.
    """
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise bad(option, str(error)) from None


def gate(text: str) -> dict[str, Any]:
    """Return a bound: METRIC<=NUMBER or METRIC>=NUMBER, the number perhaps in per cent.

    Raises:
        Usage: it is none.
    """
    match = _GATE.match(text)
    if match is None:
        raise bad("--gate", f"{text!r} is not METRIC<=NUMBER or METRIC>=NUMBER")
    try:
        limit = quantities.bound(match["bound"])
    except ValueError:
        raise bad("--gate", f"{text!r}: {match['bound']!r} is no number") from None
    return {"metric": match["metric"], "max" if match["sign"] == "<=" else "min": limit}


def pattern(text: str | None) -> dict[str, Any] | str | None:
    """Return N:M as an object, a name as it is."""
    match = _N_OF_M.match(text or "")
    return {"name": "n:m", "n": int(match["n"]), "m": int(match["m"])} if match else text


def assignment(text: str) -> tuple[list[str], Any]:
    """Return the path and the value of field=value; the value is JSON, or text where it is none.

    Raises:
        Usage: it is no assignment.
    """
    path, equals, value = text.partition("=")
    steps = path.split(".")
    if not equals or not all(steps):
        raise bad("--set", f"{text!r}: an assignment is field=value")
    try:
        return steps, json.loads(value)
    except ValueError:
        return steps, value


def assigned(prune: dict[str, Any], assignments: Sequence[tuple[list[str], Any]]) -> dict[str, Any]:
    """Return the specification with fields set by their paths.

    Raises:
        Usage: a path leads through what is no object.
    """
    for (*parents, field), value in assignments:
        place = prune
        for parent in parents:
            below = place.setdefault(parent, {})
            if not isinstance(below, dict):
                raise bad("--set", f"{parent} of {'.'.join((*parents, field))} is no object")
            place = below
        place[field] = value
    return prune


def labels(given: Sequence[str] | None) -> dict[str, str]:
    """Return labels given as key=value.

    Raises:
        Usage: one is not.
    """
    matches = {label: _LABEL.match(label) for label in given or ()}
    for label, match in matches.items():
        if match is None:
            raise bad("--label", f"{label!r}: a label is key=value")
    return {match["key"]: match["value"] for match in matches.values() if match}


def without_unset(value: Any) -> Any:
    """Leave out what was not given, so that the server's defaults hold."""
    if not isinstance(value, dict):
        return value
    kept = {key: without_unset(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item not in (None, {}, [])}


def bad(option: str, why: str) -> Usage:
    """Return the error of an option."""
    return Usage(f"{option}: {why}", code="USAGE")
