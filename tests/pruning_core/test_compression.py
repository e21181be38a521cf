"""What a configuration says of how its weights are stored: plain ones are pruned, others refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import UnsupportedModel
from tests import tiny
from tests.pruning_core.unit_runs import finished, spec

SPARSE = {"format": "dense", "sparsity_structure": "2:4", "global_sparsity": 0.5}
BITMASK = SPARSE | {"format": "sparse-24-bitmask"}
TOOL = {"quant_method": "compressed-tensors"}
PLAIN: dict[str, dict[str, Any]] = {
    "sparsity": {"sparsity_config": SPARSE},
    "sparsity within": {"quantization_config": TOOL | {"format": "dense", "sparsity_config": SPARSE}},
    "no groups": {"quantization_config": TOOL | {"format": "dense", "config_groups": {}}},
    "older key": {"compression_config": {"sparsity_config": SPARSE}},
    "nothing": {"quantization_config": None, "sparsity_config": {}},
}  # fmt: skip
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantised \(gptq\)"),
    "bitsandbytes": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        r"quantised \(bitsandbytes\)",
    ),
    "packed": (
        {
            "quantization_config": TOOL
            | {"format": "pack-quantized", "config_groups": {"group_0": {"weights": {}}}}
        },
        "quantised .*pack-quantized",
    ),
    "rounded and stored plainly": (
        {"quantization_config": TOOL | {"format": "dense", "config_groups": {"group_0": {}}}},
        "quantised .*dense",
    ),
    "bitmask": ({"sparsity_config": BITMASK}, "compressed .*sparse-24-bitmask"),
    "bitmask within": (
        {"quantization_config": TOOL | {"format": "dense", "sparsity_config": BITMASK}},
        "compressed .*sparse-24-bitmask",
    ),
    "no object": ({"quantization_config": "int8"}, "storage as 'int8'"),
}


def saying(folder: Path, values: dict[str, Any]) -> Path:
    tiny.save(folder, "llama")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize("kind", PLAIN)
def test_weights_that_are_said_to_be_plain_are_admitted(kind: str, tmp_path: Path) -> None:
    facts = inspect(saying(tmp_path / "m", PLAIN[kind]))
    assert facts.config.keys().isdisjoint(PLAIN[kind])


@pytest.mark.parametrize("kind", OTHERS)
def test_weights_that_are_not_plain_are_refused_by_what_they_are(kind: str, tmp_path: Path) -> None:
    values, told = OTHERS[kind]
    with pytest.raises(UnsupportedModel, match=told):
        inspect(saying(tmp_path / "m", values))


def test_what_is_left_out_of_the_configuration_is_named(tmp_path: Path) -> None:
    values = {"sparsity_config": SPARSE, "auto_map": {"AutoModel": "mine.Model"}}
    folder = saying(tmp_path / "m", values)
    result = finished(folder, spec("magnitude", sparsity=0.5), tmp_path / "out")
    assert result.config.keys().isdisjoint(values)
    (told,) = (one for one in result.report.warnings if "leaves out" in one)
    assert "auto_map" in told
    assert "sparsity_config" in told
