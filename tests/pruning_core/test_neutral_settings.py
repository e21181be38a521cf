"""Settings that have nothing to do with weights: of outputs, of decoding, of how far positions reach."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import ModelInvalid
from pruning_core.evaluate import verify
from pruning_core.model import preflight
from pruning_core.pipeline.phases import prune
from pruning_core.spec.prune import PruneSpec
from pruning_core.text import self_generated
from tests import tiny
from tests.pruning_core.runs import answers

CPU = torch.device("cpu")
Dense = Callable[[str], Path]

OUTPUTS: list[tuple[str, dict[str, Any]]] = [
    ("mixtral", {"output_router_logits": True}),
    ("qwen3_moe", {"output_router_logits": True}),
    ("gpt_oss", {"output_router_logits": True}),
    ("llama", {"output_hidden_states": True, "output_attentions": True}),
    ("gpt2", {"output_hidden_states": True, "output_attentions": True, "use_cache": False}),
    ("llama", {"return_dict": False}),
    ("gpt2", {"return_dict": False}),
    ("opt", {"return_dict": False, "use_cache": False}),
    ("qwen3", {"torchscript": True, "gradient_checkpointing": True}),
    ("llama", {"num_beams": 4, "max_length": 3, "penalty_alpha": 0.6, "top_k": 4}),
]
DECODING: dict[str, dict[str, Any]] = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "several": {"num_return_sequences": 3, "do_sample": True},
    "scores": {"return_dict_in_generate": True, "output_scores": True},
    "beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "short": {"max_length": 2, "max_new_tokens": 1},
    "forced": {"forced_bos_token_id": 5, "forced_eos_token_id": 2, "forced_decoder_ids": [[1, 5]]},
    "quantized": {"cache_implementation": "quantized"},
    "layers": {"dola_layers": "low"},
    "strings": {"stop_strings": ["x"]},
    "own code": {"custom_generate": "someone/decoding"},
    "foreign ids": {"eos_token_id": [2, 99_999, -1], "pad_token_id": 99_999},
    "words": {"eos_token_id": "</s>", "temperature": -1.0, "max_length": "many"},
}


def changed(source: Path, target: Path, file: str, values: dict[str, Any]) -> Path:
    """Copy a folder with other values in one of its JSON files."""
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps(content | values))
    return target


def examined(
    folder: Path, logits: torch.Tensor, ids: torch.Tensor, out: Path, *, timed: str = ""
) -> dict[str, Any]:
    """Return what the process that verifies a result finds, in this one."""
    save_file({"tokens": ids, "logits": logits.contiguous()}, out / "probe.safetensors")
    return verify._examine(str(folder), str(out / "probe.safetensors"), "cpu", timed)


@pytest.mark.parametrize(("model_type", "values"), OUTPUTS)
def test_what_a_model_is_set_to_put_out_changes_no_answer(
    model_type: str, values: dict[str, Any], dense: Dense, tmp_path: Path
) -> None:
    plain, ids = dense(model_type), tiny.tokens(1, 24)
    folder = changed(plain, tmp_path / "m", "config.json", values)
    logits = answers(folder, ids)
    assert torch.equal(logits, answers(plain, ids))
    found = examined(folder, logits, ids, tmp_path, timed="timed")
    # experts are added in another order
    assert found["max_logit_difference"] <= 1e-5
    assert found["sample"].startswith(verify.PROMPT)
    assert found["speed"]["pruned"]["decode"] > 0


@pytest.mark.parametrize("kind", DECODING)
def test_how_a_model_is_set_to_decode_does_not_count(
    kind: str, dense: Dense, tmp_path: Path
) -> None:
    plain, ids = dense("llama"), tiny.tokens(1, 8)
    folder = changed(plain, tmp_path / "m", "generation_config.json", DECODING[kind])
    preflight.check(folder, inspect(folder))
    found, usual = (examined(one, answers(plain, ids), ids, tmp_path) for one in (folder, plain))
    assert found["sample"] == usual["sample"]
    assert len(found["sample"]) > len(verify.PROMPT)


@pytest.mark.parametrize(
    ("model_type", "setting"), [("gpt2", "n_positions"), ("opt", "max_position_embeddings")]
)
@pytest.mark.parametrize("positions", [2, 5, 20])
def test_a_result_is_examined_within_its_positions(
    model_type: str, setting: str, positions: int, tmp_path: Path
) -> None:
    folder = tiny.save(tmp_path / "m", model_type, **{setting: positions})
    ids = verify.probe_tokens(tiny.VOCAB, positions)
    assert ids.shape[1] == positions
    found = examined(folder, answers(folder, ids), ids, tmp_path, timed="timed")
    assert found["max_logit_difference"] <= 1e-5
    assert found["speed"]["prompt_tokens"] + found["speed"]["new_tokens"] <= positions + 1


def test_a_run_leaves_the_settings_as_they_were(dense: Dense, tmp_path: Path) -> None:
    rope = {"rope_theta": 10_000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    own = {"return_dict": False, "torch_dtype": "float32", "_name_or_path": "someone/model"}
    folder = changed(dense("llama"), tmp_path / "m", "config.json", rope | own)
    content = json.loads((folder / "config.json").read_text())
    written = {
        key: value for key, value in content.items() if key not in ("rope_parameters", "dtype")
    }
    (folder / "config.json").write_text(json.dumps(written))
    decoding = json.dumps(DECODING["contrastive"] | {"eos_token_id": 2})
    (folder / "generation_config.json").write_text(decoding)
    spec = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}}
    prune(folder, PruneSpec.model_validate(spec), tmp_path / "out")
    result = tmp_path / "out" / "checkpoint"
    assert (result / "generation_config.json").read_text() == decoding
    found = json.loads((result / "config.json").read_text())
    assert list(found.items()) == list(written.items())


def test_text_of_its_own_is_sampled_whatever_the_model_is_set_to(
    dense: Dense, tmp_path: Path
) -> None:
    values = {"output_router_logits": True, "return_dict": False}
    folder = changed(dense("mixtral"), tmp_path / "m", "config.json", values)
    (folder / "generation_config.json").write_text(json.dumps(DECODING["scores"]))
    self_generated._sample(str(folder), str(tmp_path / "text"), "2", "12", "0", "cpu")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "not a mapping"),
        ('{"cache_implementation": "nowhere"}', "cache_implementation"),
        ('{"num_return_sequences": 3}', "num_return_sequences"),
        ('{"compile_config": {"mode": "default"}}', "compile_config"),
    ],
)
def test_a_decoding_that_stock_transformers_refuses_to_open_is_refused_first(
    content: str, told: str, dense: Dense, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(dense("llama"), tmp_path / "m"))
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(ModelInvalid, match=rf"generation_config.json: .*{told}"):
        preflight.check(folder, inspect(folder))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"use_cache": "yes"}, "use_cache"),
        ({"use_return_dict": False}, "use_return_dict"),
        ({"problem_type": "single_label_classification", "num_labels": 1}, "problem_type"),
    ],
)
def test_settings_that_stock_transformers_refuses_are_refused_first(
    values: dict[str, Any], told: str, dense: Dense, tmp_path: Path
) -> None:
    folder = changed(dense("llama"), tmp_path / "m", "config.json", values)
    spec = PruneSpec.model_validate({"method": "magnitude", "sparsity": 0.5})
    with pytest.raises(ModelInvalid, match=rf"refuses config.json: (.|\n)*{told}"):
        prune(folder, spec, tmp_path / "out")


def test_a_decoding_that_is_no_json_is_absent_as_to_stock_transformers(
    dense: Dense, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(dense("llama"), tmp_path / "m"))
    (folder / "generation_config.json").write_text("{")
    preflight.check(folder, inspect(folder))
