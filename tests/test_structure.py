"""What the code's structure promises: methods are plug-ins, modules and functions are short."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pruning_core.spec.methods import METHODS, method_name
from tests.conftest import REPOSITORY
from tests.test_repository import MODULES

UNION = "pruning_core/spec/methods.py"
SEARCHED = {"pruning_core/searches/pho.py", "pruning_core/searches/hill_climb.py"}
"""A search is of one method's coefficients."""
LONGEST_MODULE, MEDIAN_MODULE = 350, 110
LONGEST_FUNCTION, MEDIAN_FUNCTION = 45, 8


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def uses(name: str) -> Iterator[str]:
    """Yield the modules that take a class from the specification."""
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            of_spec = isinstance(node, ast.ImportFrom) and "pruning_core.spec" in str(node.module)
            if of_spec and name in {alias.name for alias in node.names}:
                yield relative(path)


@pytest.mark.parametrize("method", METHODS, ids=method_name)
def test_a_method_s_class_is_named_in_its_spec_its_file_and_the_union(method: type) -> None:
    name = method.__name__
    own = {
        f"pruning_core/{room}/{method_name(method)}.py"
        for room in ("element_methods", "unit_methods")
    }
    searched = SEARCHED if name == "CRePE" else set()
    assert set(uses(name)) - own - searched <= {UNION}


def functions() -> Iterator[tuple[str, int]]:
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{relative(path)}: {node.name}", node.end_lineno - node.lineno + 1


def test_modules_are_short() -> None:
    lengths = {relative(path): path.read_text(encoding="utf-8").count("\n") for path in MODULES}
    assert not {name for name, lines in lengths.items() if lines > LONGEST_MODULE}
    assert statistics.median(filter(None, lengths.values())) <= MEDIAN_MODULE


def test_functions_are_short() -> None:
    lengths = list(functions())
    assert not [name for name, lines in lengths if lines > LONGEST_FUNCTION]
    assert statistics.median(lines for _, lines in lengths) <= MEDIAN_FUNCTION
