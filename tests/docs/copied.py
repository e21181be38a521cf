"""What a page of docs/ says is done to a copy of the package, which then prunes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY


def copied_package(root: Path) -> Path:
    """Return a copy of `pruning_core` below a folder."""
    return Path(shutil.copytree(REPOSITORY / "pruning_core", root / "pruning_core"))


def code_blocks(text: str, heading: str) -> list[str]:
    """Return the Python of one section of a page, piece by piece."""
    section = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


def class_name(code: str) -> str:
    return re.findall(r"^class (\w+)", code, flags=re.MULTILINE)[0]


def run_copy(
    root: Path, script: str, *arguments: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Run a script with the copy's package and return the JSON of its last line."""
    monkeypatch.setenv("PYTHONPATH", str(root))  # of the processes that it starts
    (root / "prune.py").write_text(script)
    ended = subprocess.run(
        [sys.executable, str(root / "prune.py"), *map(str, arguments)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert answer["package"] == str(root)
    return answer
