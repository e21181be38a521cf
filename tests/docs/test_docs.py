"""The pages under docs/ name everything that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import worker.errors  # noqa: F401 - its classes belong to the tree of PruningError
from api.app import create_app
from api.problems import STATUS_OF_CODE
from pruning_core.errors import PruningError
from pruning_core.spec.element_methods import ElementMethod
from pruning_core.spec.methods import METHODS, method_name
from store.errors import StoreError
from store.settings import Settings
from tests.conftest import REPOSITORY

HEADINGS = [
    "Idea",
    "Formula",
    "Parameters",
    "What it costs",
    "What to expect",
    "Source",
    "Departures",
]
PAGES = sorted((*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")))


def read(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def codes_below(error: type[PruningError] | type[StoreError]) -> set[str]:
    return {error.code}.union(*(codes_below(child) for child in error.__subclasses__()))


def codes() -> set[str]:
    return codes_below(PruningError) | codes_below(StoreError) | set(STATUS_OF_CODE) | {"POISON"}


@pytest.mark.parametrize("method", METHODS, ids=method_name)
def test_every_method_has_its_page(method: type[ElementMethod]) -> None:
    page = read(f"docs/methods/{method_name(method)}.md")
    assert re.findall(r"^## (.+)$", page, flags=re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("method", METHODS, ids=method_name)
def test_every_parameter_of_a_method_is_on_its_page(method: type[ElementMethod]) -> None:
    page = read(f"docs/methods/{method_name(method)}.md")
    for field in set(method.model_fields) - {"name"}:
        assert f"`{field}`" in page


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_explained(name: str) -> None:
    assert f"\n| `SECATEUR_{name.upper()}` |" in read("docs/operations.md")


def test_every_route_is_listed_and_no_other(tmp_path: Path) -> None:
    schema = create_app(Settings(data_dir=tmp_path)).openapi()
    routes = {f"{verb.upper()} {path}" for path, item in schema["paths"].items() for verb in item}
    pattern = r"^\| `((?:GET|POST|DELETE) /\S+)` \|"
    listed = set(re.findall(pattern, read("docs/api.md"), re.MULTILINE))
    assert {route.replace(":path", "") for route in routes} == listed


def test_every_error_code_is_listed_and_no_other() -> None:
    listed = set(re.findall(r"^\| `([A-Z_]{5,})` \|", read("docs/api.md"), re.MULTILINE))
    assert codes() == listed


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
