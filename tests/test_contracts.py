"""Every import rule of pyproject.toml holds, and breaks where an import against it is planted."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.independence import IndependenceContract
from importlinter.contracts.layers import LayersContract
from importlinter.contracts.protected import ProtectedContract
from importlinter.domain.contract import Contract

from tests.conftest import REPOSITORY

OPTIONS = read_configuration(str(REPOSITORY / "pyproject.toml"))
TYPES: dict[str, type[Contract]] = {
    "acyclic_siblings": AcyclicSiblingsContract,
    "forbidden": ForbiddenContract,
    "independence": IndependenceContract,
    "layers": LayersContract,
    "protected": ProtectedContract,
}
ROOMS = "A room of the core uses the rooms below it alone"
PLANTED = {
    ROOMS: ("pruning_core.numerics.importance", "pruning_core.model.matrix"),
    "The element-wise methods know nothing of each other": (
        "pruning_core.element_methods.ria",
        "pruning_core.element_methods.wanda",
    ),
    "The unit methods know nothing of each other": (
        "pruning_core.unit_methods.goa",
        "pruning_core.unit_methods.flap",
    ),
    "The refinements know nothing of each other": (
        "pruning_core.refinements.polish",
        "pruning_core.refinements.dsnot",
    ),
    "The allocations know nothing of each other": (
        "pruning_core.allocations.ramp",
        "pruning_core.allocations.owl",
    ),
    "The two searches know nothing of each other": (
        "pruning_core.searches.hill_climb",
        "pruning_core.searches.pho",
    ),
    "No circle among the modules of any package": (
        "pruning_core.model.block_calls",
        "pruning_core.model.streamed",
    ),
    "Formulas know tensors alone: no module, no file": (
        "pruning_core.numerics.linear_algebra",
        "safetensors",
    ),
    "The numerical core knows no HTTP, database or queue": (
        "pruning_core.pipeline.run",
        "store.session",
    ),
    "The vocabulary, the families and what is read at submit need no torch": (
        "pruning_core.structure.layout",
        "torch",
    ),
    "The report's page and the model card need no torch": (
        "pruning_core.reporting.card",
        "pruning_core.numerics.linear_algebra",
    ),
    "What serves and what works stand on the store, the store on the core and the migrations": (
        "api.app",
        "worker.supervise",
    ),
    "Routes know nothing of each other": ("api.routes.jobs", "api.routes.files"),
    "Which artifact store there is, the one factory knows": ("api.app", "store.local_artifacts"),
    "The store knows neither its users nor torch": ("store.jobs", "pruning_core.plans.element"),
    "The front end needs no torch and no worker": ("api.schemas", "pruning_core.text.windows"),
    "The worker does not know the front end": ("worker.supervise", "api.schemas"),
    "Only the child process imports torch": ("worker.supervise", "torch"),
    "What users install talks HTTP alone": ("secateur.client", "pruning_core.families.llama"),
}
"""By contract: a module, and what it must not import."""


def contract(name: str) -> Contract:
    (options,) = (options for options in OPTIONS["contracts_options"] if options["name"] == name)
    return TYPES[options["type"]](name, OPTIONS["session_options"], options)


def kept(rule: Contract, graph: grimp.ImportGraph) -> bool:
    return bool(rule.check(copy.deepcopy(graph), verbose=False).kept)


@contextmanager
def planted(graph: grimp.ImportGraph, importer: str, imported: str) -> Iterator[None]:
    assert importer in graph.modules
    assert imported in graph.modules
    assert not graph.direct_import_exists(importer=importer, imported=imported)
    graph.add_import(importer=importer, imported=imported)
    try:
        yield
    finally:
        graph.remove_import(importer=importer, imported=imported)


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        *OPTIONS["session_options"]["root_packages"], include_external_packages=True, cache_dir=None
    )


def test_every_contract_has_an_import_that_breaks_it() -> None:
    assert PLANTED.keys() == {options["name"] for options in OPTIONS["contracts_options"]}


def test_each_contract_is_broken_by_what_is_planted_and_by_nothing_else(
    graph: grimp.ImportGraph,
) -> None:
    for name, (importer, imported) in PLANTED.items():
        rule = contract(name)
        assert kept(rule, graph), name
        with planted(graph, importer, imported):
            assert not kept(rule, graph), name


def rooms() -> list[list[str]]:
    """Return the rooms of the core, layer by layer, from the top."""
    (options,) = (options for options in OPTIONS["contracts_options"] if options["name"] == ROOMS)
    return [layer.split(" | ") for layer in options["layers"]]


def test_no_room_of_the_core_may_use_the_one_above(graph: grimp.ImportGraph) -> None:
    for above, below in zip(rooms(), rooms()[1:], strict=False):
        importer, imported = f"pruning_core.{below[0]}", f"pruning_core.{above[0]}"
        with planted(graph, importer, imported):
            assert not kept(contract(ROOMS), graph), importer


def test_a_room_without_a_place_breaks_the_contract(graph: grimp.ImportGraph) -> None:
    graph.add_module("pruning_core.attic")
    try:
        assert not kept(contract(ROOMS), graph)
    finally:
        graph.remove_module("pruning_core.attic")


FORMULAS = (
    "element_methods",
    "refinements",
    "allocations",
    "searches",
    "selection",
    "numerics",
)


def imported_by(path: Path) -> set[str]:
    """Return the full names that a module imports; of `from a import b` both `a` and `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def nn_used(path: Path) -> bool:
    return any(f"{name}.".startswith("torch.nn.") for name in imported_by(path))


@pytest.mark.parametrize("room", FORMULAS)
def test_formulas_know_no_module_of_a_network(room: str) -> None:
    paths = sorted((REPOSITORY / "pruning_core" / room).glob("*.py"))
    assert len(paths) > 1
    assert [path.name for path in paths if nn_used(path)] == []


@pytest.mark.parametrize(
    "line", ["import torch.nn", "from torch import nn", "from torch.nn import functional"]
)
def test_a_formula_that_imports_a_network_is_seen(line: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(f"{line}\n")
    assert nn_used(tmp_path / "planted.py")
