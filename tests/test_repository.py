"""The files around the code agree with it and with each other."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
MODULES = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]


def constraints() -> list[Requirement]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line]


def test_newest_version_in_the_changelog_is_the_project_s() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text, flags=re.MULTILINE)
    assert versions, "CHANGELOG.md has no heading like `## [0.1.0]`"
    assert versions[0] == PROJECT["project"]["version"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_module_hides_one_of_the_standard_library(path: Path) -> None:
    """`import statistics` from a script inside the folder would find ours."""
    name = path.parent.name if path.name == "__init__.py" else path.stem
    assert name == "__main__" or name not in sys.stdlib_module_names


def test_one_module_sets_hooks() -> None:
    setting = {
        path.stem
        for path in MODULES
        if re.search(r"\.register_\w*hook\(", path.read_text(encoding="utf-8"))
    }
    assert setting == {"recorder"}


def test_every_requirement_has_its_exact_version_in_the_constraints() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [Requirement(text) for group in extras for text in group]
    wanted += [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    exact = {canonicalize_name(line.name): line for line in constraints()}
    for requirement in wanted:
        if requirement.name == PROJECT["project"]["name"]:
            continue
        found = exact.get(canonicalize_name(requirement.name))
        assert found is not None, f"constraints.txt lacks {requirement.name}"
        version = str(found.specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement} excludes {found}"


def test_constraints_name_versions_and_nothing_else() -> None:
    for line in constraints():
        assert line.url is None
        assert re.fullmatch(r"==[^+*]+", str(line.specifier)), line


def test_make_has_every_target_that_the_readme_names() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", readme, flags=re.MULTILINE)) <= targets
