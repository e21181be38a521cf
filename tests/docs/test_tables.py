"""The tables of README and docs/ say what the code says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest

from api.app import create_app
from api.problems import STATUS_OF_CODE
from pruning_core.errors import PruningError
from pruning_core.spec.methods import METHODS, method_name
from pruning_core.spec.progress import Phase
from pruning_core.spec.unit_method import UnitMethod
from store.settings import Settings
from store.states import STATUSES, TERMINAL
from tests.conftest import REPOSITORY

Row = tuple[str, ...]
UNITS = {method_name(method) for method in METHODS if issubclass(method, UnitMethod)}
ELEMENTS = {method_name(method) for method in METHODS} - UNITS
API, STRUCTURED = "docs/api.md", "docs/structured.md"
METHODS_TABLE = ("method", "parameters (default)", "default pattern")
UNIT_METHODS_TABLE = ("method", "parameters (default)", "removes")


def table(page: str, *header: str) -> list[Row]:
    """Return the rows below a header that stands on the page once."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    _, found, rest = text.partition(f"| {' | '.join(header)} |\n")
    assert found, (page, header)
    assert found not in rest
    lines = rest.split("\n\n")[0].splitlines()[1:]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]


def linked(cells: Iterable[str], folder: str = "methods/") -> list[str]:
    """Return the names of the methods that link to their pages."""
    return [
        name
        for cell in cells
        for name, page in re.findall(r"\[`?(\w+)`?\]\(([\w./#-]+)\)", cell)
        if page == f"{folder}{name}.md"
    ]


def test_the_methods_of_the_readme() -> None:
    rows = table("README.md", "methods", "what goes", "the result")
    listed = {result: linked([methods], "docs/methods/") for methods, _, result in rows}
    smaller = [
        name
        for methods, _, result in rows
        for name in linked([methods], "docs/methods/")
        if result == "smaller"
    ]
    assert set(listed) == {"zeros, same size", "smaller"}
    assert sorted(listed["zeros, same size"]) == sorted(ELEMENTS)
    assert sorted(smaller) == sorted(UNITS)


def test_the_methods_that_remove_units() -> None:
    rows = table(STRUCTURED, "you want", "method", "removes")
    named = [linked([method])[0] for _, method, _ in rows]
    assert sorted(named) == sorted(UNITS)
    removed = {name: removes for (*_, removes), name in zip(rows, named, strict=True)}
    for name, _, removes in table(API, *UNIT_METHODS_TABLE):
        (method,) = linked([name])
        assert removes.startswith(removed[method]), method


@pytest.mark.parametrize(
    ("header", "methods"), [(METHODS_TABLE, ELEMENTS), (UNIT_METHODS_TABLE, UNITS)]
)
def test_every_parameter_and_its_default(header: Row, methods: set[str]) -> None:
    classes = {method_name(method): method for method in METHODS}
    rows = {linked([name])[0]: cells for name, *cells in table(API, *header)}
    assert set(rows) == methods
    for name, (parameters, last) in rows.items():
        fields = {key: field for key, field in classes[name].model_fields.items() if key != "name"}
        told = re.findall(r"(?:^|, )`(\w+)`(?: \((.*?)\))?(?=, `|$)", parameters)
        assert dict(told) == {key: in_words(field.default) for key, field in fields.items()}, name
        if name in ELEMENTS:
            assert last == f"`{classes[name].default_pattern}`"


def in_words(default: Any) -> str:
    """Return a default as the tables give it."""
    match default:
        case None:
            return ""
        case bool():
            return str(default).lower()
        case int() | float():
            return f"{default:g}"
        case tuple():
            return ", ".join(f"`{one}`" for one in default)
    return f"`{default}`"


def test_the_scopes_of_routes(tmp_path: Path) -> None:
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    words = {(): "any key", None: "no key"}
    scopes = {
        f"{verb.upper()} {path.replace(':path', '')}": None
        if "security" not in operation
        else tuple(operation["security"][0]["HTTPBearer"])
        for path, item in paths.items()
        for verb, operation in item.items()
    }
    told = {
        route.strip("`"): scope for route, scope, _ in table(API, "route", "scope", "what it does")
    }
    assert told == {route: words.get(scope) or f"`{scope[0]}`" for route, scope in scopes.items()}


def test_the_status_of_every_code() -> None:
    rows = table(API, "code", "HTTP", "meaning")
    codes = [code.strip("`") for code, *_ in rows]
    assert len(codes) == len(set(codes))
    for code, (_, status, _) in zip(codes, rows, strict=True):
        assert int(status) == STATUS_OF_CODE.get(code, 422), code


def test_the_class_of_every_code_of_a_job() -> None:
    classes = {error.code: error.error_class for error in below(PruningError)}
    for code, error_class, _ in table(API, "code", "class", "meaning"):
        name = code.strip("`")
        assert error_class == classes.get(name, "system"), name


def below(error: type[PruningError]) -> list[type[PruningError]]:
    return [error, *(one for child in error.__subclasses__() for one in below(child))]


def test_every_status_of_a_job_and_which_end_it() -> None:
    rows = table(API, "status", "meaning", "ends")
    told = {status.strip("`"): ends == "yes" for status, _, ends in rows}
    assert told == {status: status in TERMINAL for status in (*STATUSES, "cancelling")}


def test_every_phase_is_named() -> None:
    (running,) = (row for row in table(API, "status", "meaning", "ends") if row[0] == "`running`")
    (named,) = re.findall(r"`phase` is one of `([^`]+)`", running[1])
    assert sorted(named.split()) == sorted(get_args(Phase))
