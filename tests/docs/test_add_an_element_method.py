"""Method, refinement and allocation of docs/add-a-method.md, each one class and one file in a copy of the package, prune there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.conftest import REPOSITORY
from tests.docs.copied import class_name, code_blocks, copied_package, run_copy

PAGE = (REPOSITORY / "docs" / "add-a-method.md").read_text(encoding="utf-8")
PRUNE = """
import json, sys
from pathlib import Path
from pruning_core.pipeline import prune
from pruning_core.spec.prune import PruneSpec
import pruning_core
asked = {
    "method": {"name": "noise", "amount": 0.2},
    "sparsity": 0.5,
    "allocation": {"name": "by_size", "spread": 0.2},
    "refinement": ["keep_size"],
    "evaluation": {"tasks": []},
}
report = prune(Path(sys.argv[1]), PruneSpec.model_validate(asked), Path(sys.argv[2]))
print(json.dumps({
    "package": str(Path(pruning_core.__file__).parent.parent),
    "ratios": report.ratios,
    "sparsity": report.sparsity,
}))
"""


def add_to_union(path: Path, class_: str, last: str, *, before: str) -> None:
    """Write a class into a file of the specification, and its name behind another one of a union."""
    text = path.read_text()
    assert text.count(before) == text.count(f" {last}, Field(") == 1
    text = text.replace(before, f"{class_}\n\n{before}")
    path.write_text(text.replace(f" {last}, Field(", f" {last} | {class_name(class_)}, Field("))


def test_a_method_a_refinement_and_an_allocation_are_one_file_and_one_class_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (noise,) = code_blocks(PAGE, "## 1. The class")
    score, _prune = code_blocks(PAGE, "## 2. The functions")
    keep_size, refine = code_blocks(PAGE, "## A refinement")
    by_size, ratios = code_blocks(PAGE, "## An allocation")
    package = copied_package(tmp_path / "copy")

    spec = package / "spec"
    methods = spec / "element_methods.py"
    methods.write_text(f"{methods.read_text()}\n\n{noise}")
    union = (spec / "methods.py").read_text()
    union = union.replace("    Magnitude,\n", "    Magnitude,\n    Noise,\n", 1)
    (spec / "methods.py").write_text(
        union.replace("    Magnitude\n", "    Magnitude\n    | Noise\n", 1)
    )
    composition = spec / "composition.py"
    add_to_union(composition, keep_size, "Refit", before="Refinement = Annotated")
    add_to_union(composition, by_size, "DepthRamp", before="Allocation = Annotated")
    (package / "element_methods" / "noise.py").write_text(score)
    (package / "refinements" / "keep_size.py").write_text(refine)
    (package / "allocations" / "by_size.py").write_text(ratios)

    source = tiny.save(tmp_path / "dense", "llama")
    answer = run_copy(tmp_path / "copy", PRUNE, source, tmp_path / "out", monkeypatch=monkeypatch)
    assert abs(answer["sparsity"] - 0.5) < 1e-4
    assert max(answer["ratios"]) - min(answer["ratios"]) > 0.1
    before, after = (
        load_file(folder / "model.safetensors")["model.layers.0.mlp.gate_proj.weight"]
        for folder in (source, tmp_path / "out" / "checkpoint")
    )
    sizes = torch.linalg.vector_norm(before, dim=1), torch.linalg.vector_norm(after, dim=1)
    torch.testing.assert_close(*sizes)
    assert not torch.equal(before, after)
