"""Results of models whose configuration an older transformers wrote: that release opens them, and answers the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pruning_core.families import family_of
from tests import tiny
from tests.conftest import REPOSITORY
from tests.pruning_core import reload_all
from tests.pruning_core.runs import MODEL_TYPES
from tests.pruning_core.unit_runs import (
    KINDS,
    METHODS,
    Result,
    difference,
    fewer,
    finished,
    save,
    spec,
)

pytestmark = pytest.mark.quality
RELEASE = "4.56.2"
PACKAGES = (f"transformers=={RELEASE}", "tokenizers==0.22.2", "huggingface-hub==0.36.0")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SCALED: dict[str, dict[str, Any]] = {
    "llama": LLAMA3,
    "qwen2": {"type": "linear", "factor": 2.0},
    "qwen3": {"rope_type": "dynamic", "factor": 2.0},
    "mistral": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "gemma3_text": {"rope_type": "linear", "factor": 8.0},
}
"""How positions are scaled, as these files have it."""
OTHERWISE: dict[str, dict[str, Any]] = {
    # Older fused attention leaves the cap out
    "gemma2": {"attn_logit_softcapping": None},
}
CLOSE = 1e-4
"""Of two releases, and of sums of other lengths."""


@pytest.fixture(scope="module")
def older() -> Path:
    """The older release in a folder of its own, without torch; fetched once."""
    folder = REPOSITORY / ".secateur" / "cache" / f"transformers-{RELEASE}"
    if not (folder / "transformers").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*pip, "--target", str(folder), *PACKAGES], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"transformers {RELEASE} cannot be installed: {done.stderr.strip()[-300:]}")
    return folder


def as_written_then(folder: Path, scaling: dict[str, Any] | None) -> None:
    """Put a saved configuration into the older release's words."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["torch_dtype"] = content.pop("dtype")
    content["transformers_version"] = RELEASE
    if content["model_type"] == "qwen3_moe":
        content["num_experts"] = content.pop("num_local_experts")
    rope = content.pop("rope_parameters", None)
    if rope is not None and "full_attention" in rope:
        content["rope_theta"] = rope["full_attention"]["rope_theta"]
        content["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    elif rope is not None:
        content["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            content["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        content["rope_scaling"] = None if rope == {"rope_type": "default"} else rope
    if scaling is not None:
        content["rope_scaling"] = scaling
    path.write_text(json.dumps(content, indent=2))


def runs(model_type: str, source: Path, out: Path) -> dict[str, Result]:
    """Remove every kind of unit that can go, each alone, and weights by a mask."""
    found = {"mask": finished(source, spec("wanda", sparsity=0.5), out / "mask")}
    for kind in KINDS:
        if kind not in family_of(model_type).fixed:
            amount = {} if kind == "vocabulary" else fewer(source, (kind,))
            found[kind] = finished(source, spec(METHODS[kind], **amount), out / kind)
    return found


def answers(
    older: Path, listed: dict[str, tuple[Path, Path]], work: Path
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return logits by name, and errors by name, of the older release in a process of its own."""
    entries = [[name, str(folder), str(probe)] for name, (folder, probe) in listed.items()]
    (work / "list.json").write_text(json.dumps(entries))
    target = work / "answers.safetensors"
    subprocess.run(
        [sys.executable, reload_all.__file__, str(work / "list.json"), str(target)],
        check=True,
        capture_output=True,
        env={"PYTHONPATH": str(older), "OMP_NUM_THREADS": "1"},
    )
    with safe_open(target, framework="pt") as opened:
        errors = dict(opened.metadata() or {})
    tensors = load_file(target)
    return {name: tensors[f"{name}/logits"] for name in listed if name not in errors}, errors


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_older_release_opens_what_was_made_of_its_models(
    model_type: str, older: Path, tmp_path: Path
) -> None:
    source = save(tmp_path / "m", model_type, **OTHERWISE.get(model_type, {}))
    as_written_then(source, SCALED.get(model_type))
    before = (source / "config.json").read_text()
    results = runs(model_type, source, tmp_path)
    ids = tiny.tokens(1, 24)
    with torch.no_grad():
        dense = AutoModelForCausalLM.from_pretrained(source).eval()(ids).logits
    save_file({"tokens": ids, "logits": dense}, tmp_path / "dense.safetensors")
    listed = {name: (one.checkpoint, one.probe) for name, one in results.items()}
    found, errors = answers(
        older, listed | {"dense": (source, tmp_path / "dense.safetensors")}, tmp_path
    )
    assert not errors
    expected = {name: one.logits for name, one in results.items()} | {"dense": dense}
    assert {name for name in expected if difference(found[name], expected[name]) > CLOSE} == set()
    assert (results["mask"].checkpoint / "config.json").read_text().strip() == before
