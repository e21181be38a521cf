"""The route of docs/add-a-route.md, added to a copy of the project as the page says, passes the tests that it names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "add-a-route.md").read_text(encoding="utf-8")
NEEDED = (
    "api",
    "migrations",
    "pruning_core",
    "secateur",
    "store",
    "worker",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def insert(path: Path, mark: str, text: str) -> None:
    """Put text before a line."""
    content = path.read_text(encoding="utf-8")
    assert content.count(mark) == 1, (path.name, mark)
    path.write_text(content.replace(mark, f"{text}{mark}"), encoding="utf-8")


def test_a_route_is_added_as_the_page_says(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in NEEDED:
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy / name)
    answer, route, test = blocks("python")
    imported, placed, keyed = blocks("text")
    (line,) = blocks("markdown")
    schemas = copy / "api" / "schemas.py"
    schemas.write_text(f"{schemas.read_text(encoding='utf-8')}\n\n{answer}", encoding="utf-8")
    (copy / "api" / "routes" / "families.py").write_text(route, encoding="utf-8")
    app = copy / "api" / "app.py"
    insert(app, "from api.routes import", imported)
    insert(app, "    methods,\n", placed)
    insert(copy / "docs" / "api.md", "| `GET /v1/models/inspect` |", line)
    (copy / "tests" / "api" / "test_families.py").write_text(test, encoding="utf-8")
    insert(copy / "tests" / "api" / "test_keys.py", '    ("GET", "/v1/methods", None),\n', keyed)

    named = ["tests/api/test_families.py", "tests/api/test_keys.py", "tests/docs/test_tables.py"]
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *named,
            "-k",
            "famil or route",
        ],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import api.routes.families as added; print(added.__file__)"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()) == copy / "api" / "routes" / "families.py"
