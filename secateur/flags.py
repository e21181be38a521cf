"""The server speaks of fields of a document; the command line speaks of its own options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_OPTIONS = {
    "model": "--model",
    "name": "--name",
    "labels": "--label",
    "prune/method": "--method",
    "prune/method/name": "--method",
    "prune/sparsity": "--sparsity",
    "prune/budget": "--parameters or --bytes",
    "prune/budget/parameters": "--parameters",
    "prune/budget/bytes": "--bytes",
    "prune/pattern": "--pattern",
    "prune/pattern/name": "--pattern",
    "prune/pattern/n": "--pattern",
    "prune/pattern/m": "--pattern",
    "prune/calibration": "--calibration",
    "prune/calibration/tasks": "--calibration",
    "prune/calibration/tasks/name": "--calibration",
    "prune/calibration/tasks/samples": "--samples",
    "prune/calibration/samples": "--samples",
    "prune/calibration/seq_len": "--seq-len",
    "prune/calibration/seed": "--seed",
    "prune/evaluation/tasks": "--evaluate",
    "prune/evaluation/windows": "--eval-windows",
    "prune/evaluation/seq_len": "--eval-seq-len",
    "prune/gates": "--gate",
    "prune/gates/metric": "--gate",
    "prune/gates/min": "--gate",
    "prune/gates/max": "--gate",
}
_PARAMETERS = {
    "ref": "MODEL",
    "revision": "MODEL",
    "multiple_of": "--multiple-of",
    "Idempotency-Key": "Idempotency-Key",
}
_POINTER = re.compile(r"(?<![\w/.:~])/(?:prune|model|name|labels)(?:/[\w.~\-]+)*(?![\w/])")
_QUOTED = re.compile(r"`(?P<place>[a-z_]+(?:\.[a-z_]+)*)`")
_WORDS = {"sparsity": "--sparsity", "budget": "--parameters or --bytes"}
"""Fields that a message of the server may name without the way to them."""


def of_pointer(pointer: str) -> str:
    """Return the option that fills the field which a JSON pointer names."""
    steps = [step for step in pointer.strip("/").split("/") if step]
    names = [step for step in steps if not step.isdecimal()]
    place = "/".join(names)
    if names[:1] == ["labels"]:
        return "--label"
    if names[:1] == ["model"]:
        return "--model"
    if place in _OPTIONS:
        return _OPTIONS[place] + _which(steps)
    return f"--set {'.'.join(steps[1:])}" if names[:1] == ["prune"] and names[1:] else place


def _which(steps: list[str]) -> str:
    """Return which of a repeated option it is."""
    numbers = [int(step) for step in steps if step.isdecimal()]
    return f" (number {numbers[0] + 1})" if numbers and numbers[0] > 0 else ""


def of_parameter(parameter: str) -> str:
    """Return the option behind a query parameter."""
    name = parameter.partition(".")[0]
    return _PARAMETERS.get(name, f"--{name.replace('_', '-')}")


def of_field(field: Mapping[str, Any]) -> str:
    """Return the option behind one of a problem's `errors`, empty where it is the whole request."""
    if field.get("pointer"):
        return of_pointer(str(field["pointer"]))
    return of_parameter(str(field["parameter"])) if field.get("parameter") else ""


def in_words(text: str) -> str:
    """Return a message of the server with options in the place of fields."""
    text = _POINTER.sub(lambda match: of_pointer(match[0]), text)
    return _QUOTED.sub(lambda match: _of_place(match["place"], match[0]), text)


def _of_place(place: str, otherwise: str) -> str:
    """Return the option of a dotted place, `prune.` before it or not."""
    if place in _WORDS:
        return _WORDS[place]
    steps = place.removeprefix("prune.").replace(".", "/")
    if f"prune/{steps}" in _OPTIONS:
        return _OPTIONS[f"prune/{steps}"]
    return f"--set {place.removeprefix('prune.')}" if place.startswith("prune.") else otherwise
