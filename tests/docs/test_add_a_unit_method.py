"""The unit methods of docs/add-a-method.md, each one class and one file in a copy of the package, prune there."""

from __future__ import annotations

from pathlib import Path

import pytest

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
found = {"package": str(Path(pruning_core.__file__).parent.parent)}
for method in ("fanout", "fanout_dense", "last_blocks"):
    asked = {"method": method, "sparsity": 0.2, "evaluation": {"tasks": []}}
    report = prune(Path(sys.argv[1]), PruneSpec.model_validate(asked), Path(sys.argv[2]) / method)
    found[method] = {
        "kinds": [size.kind for size in report.sizes],
        "smaller": report.parameters_after < report.parameters,
        "removed_blocks": list(report.removed_blocks),
        "units": [unit.digest for block in report.blocks for unit in block.units],
    }
print(json.dumps(found))
"""


def add(package: Path, name: str, class_: str, file: str) -> None:
    """Do what the page says: a class, its place in the union, and a file."""
    spec = package / "spec" / "unit_methods.py"
    spec.write_text(f"{spec.read_text()}\n\n{class_}")
    union = package / "spec" / "methods.py"
    listed = class_name(class_)
    text = union.read_text().replace("    Contextual,\n", f"    Contextual,\n    {listed},\n", 1)
    union.write_text(text.replace("    | Contextual", f"    | {listed}\n    | Contextual", 1))
    (package / "unit_methods" / f"{name}.py").write_text(file)


def test_a_unit_method_is_one_file_and_one_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = code_blocks(PAGE, "## A method that removes units")
    fanout, score, decide, last_blocks, whole = section
    package = copied_package(tmp_path / "copy")
    on_dense = score.replace("Fanout", "FanoutDense").replace(
        "import torch\n",
        "from dataclasses import replace\n\nimport torch\n\n"
        "from pruning_core.decide.dense_model import DenseModel\n"
        "from pruning_core.plans.unit import UnitPlan\n",
        1,
    )
    add(package, "fanout", fanout, score)
    add(
        package,
        "fanout_dense",
        fanout.replace("Fanout", "FanoutDense").replace('"fanout"', '"fanout_dense"'),
        f"{on_dense}\n\n{decide.replace('Fanout', 'FanoutDense')}",
    )
    add(package, "last_blocks", last_blocks, whole)
    dense = tiny.save(tmp_path / "dense", "llama")
    found = run_copy(tmp_path / "copy", PRUNE, dense, tmp_path / "out", monkeypatch=monkeypatch)
    for method in ("fanout", "fanout_dense"):
        assert found[method]["smaller"]
        assert found[method]["kinds"] == ["neurons"]
    # Its score reads weights alone, which no pruned input changes
    assert found["fanout"]["units"] == found["fanout_dense"]["units"] != []
    assert found["last_blocks"]["removed_blocks"] == [tiny.BLOCKS - 1]
