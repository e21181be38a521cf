"""docs/architecture.md maps the core as it is."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
CORE = REPOSITORY / "pruning_core"


def rooms() -> set[str]:
    return {path.parent.name for path in CORE.glob("*/__init__.py")}


def test_every_room_of_the_core_is_on_the_map_once() -> None:
    table = PAGE.partition("## The rooms of the core")[2].partition("\n## ")[0]
    listed = re.findall(
        r"`(\w+)/`", "".join(re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE))
    )
    assert sorted(listed) == sorted(rooms())


def test_every_room_has_its_layer() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (one for one in contracts if one.get("containers") == ["pruning_core"])
    placed = {name.strip() for line in layers["layers"] for name in line.split("|")}
    assert layers["exhaustive"]
    assert rooms() <= placed


def test_the_loose_modules_are_named() -> None:
    loose = {path.name for path in CORE.glob("*.py")} - {"__init__.py"}
    assert loose == {name for name in re.findall(r"`(\w+\.py)`", PAGE) if "/" not in name}


def test_every_path_that_it_names_exists() -> None:
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE))
    roots = (REPOSITORY, CORE)
    assert named
    assert not {path for path in named if not any((root / path).is_file() for root in roots)}
