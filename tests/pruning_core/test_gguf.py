"""GGUF files: what they say becomes the checkpoint, and what a checkpoint cannot say is refused by name."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM, AutoTokenizer

from pruning_core.admission import model_checks, submission
from pruning_core.convert.from_gguf import write_folder
from pruning_core.errors import ModelInvalid, PruningError, UnsupportedModel
from pruning_core.gguf.file import read_model
from pruning_core.gguf.header import TYPES
from pruning_core.gguf.llama3_rope import factors_of, recover
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec
from tests import gguf_files, tiny
from tests.pruning_core.gguf_models import IDS, LINEAR, LLAMA3, YARN, difference

LONG = {
    "rope_type": "longrope", "rope_theta": 10_000.0, "long_factor": [1.0, 2.0, 3.0, 4.0],
    "short_factor": [1.0, 1.1, 1.2, 1.3], "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.19,
}  # fmt: skip


def converted(path: Path, folder: Path) -> Any:
    """Convert in this process and load with stock transformers."""
    write_folder(path, folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def refused(path: Path, code: type[PruningError], *words: str) -> None:
    with pytest.raises(code) as caught:
        read_model(path)
    assert all(word in str(caught.value.message) for word in words), caught.value.message


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {}),
        ("llama", {"head_dim": 16}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
        ("mistral", {}),
        ("mixtral", {}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("qwen3_moe", {}),
        ("gemma2", {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 2.0}),
        ("gemma3_text", {}),
        ("phi3", {"partial_rotary_factor": 0.5}),
        ("gpt2", {"layer_norm_epsilon": 1e-3}),
    ],
)
def test_a_file_answers_as_the_model_it_was_made_from(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny.build(model_type, **changes)
    path = gguf_files.write(tmp_path / "m.gguf", model)
    made = converted(path, tmp_path / "folder")
    # float32 throughout: what differs is the order of sums
    assert difference(made, model) < 2e-4
    state, truth = made.state_dict(), model.state_dict()
    # Gemma's norms are stored with 1 added, which rounds them
    assert all(torch.allclose(state[name], truth[name], atol=1e-6) for name in truth)


@pytest.mark.parametrize(
    ("model_type", "rope", "said"),
    [
        ("llama", LINEAR, {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
        ("llama", LINEAR, {"rope.scale_linear": 4.0}),
        ("qwen2", LINEAR, {"rope.scaling.factor": 4.0}),
        ("qwen3", YARN, {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}),
        ("llama", YARN | {"beta_fast": 8.0, "beta_slow": 2.0}, {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 64, "rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0}),
        ("llama", {"rope_type": "default", "rope_theta": 77_000.0}, {"rope.scaling.type": "none", "rope.scaling.factor": 8.0}),
        ("gemma3_text", {"full_attention": LINEAR | {"rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}},
            {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0, "rope.freq_base_swa": 5000.0}),
    ],
)  # fmt: skip
def test_scaled_positions_are_carried_over(
    model_type: str, rope: dict[str, Any], said: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny.build(model_type, rope_parameters=rope)
    path = gguf_files.write(tmp_path / "m.gguf", model, keys=said)
    assert difference(converted(path, tmp_path / "folder"), model) < 2e-4
    unscaled = gguf_files.write(tmp_path / "u.gguf", tiny.build(model_type))
    assert difference(converted(unscaled, tmp_path / "other"), model) > 0.01


@pytest.mark.parametrize("original", [16, 64, 8192])
def test_llama_3_s_factors_become_its_parameters(original: int, tmp_path: Path) -> None:
    rope = LLAMA3 | {"original_max_position_embeddings": original}
    model = tiny.build("llama", head_dim=32, rope_parameters=rope)
    factors = np.array(factors_of(rope, 500_000.0, 32), dtype=np.float32)
    path = gguf_files.write(tmp_path / "m.gguf", model, extra={"rope_freqs.weight": factors})
    made = converted(path, tmp_path / "folder")
    assert made.config.rope_parameters["rope_type"] == "llama3"
    assert difference(made, model) < 2e-4


def test_longrope_has_its_two_sets_of_factors(tmp_path: Path) -> None:
    changes = {"max_position_embeddings": 256, "original_max_position_embeddings": 64}
    model = tiny.build("phi3", rope_parameters=LONG, **changes)
    extra = {
        f"rope_factors_{name}.weight": np.array(LONG[f"{name}_factor"], dtype=np.float32)
        for name in ("long", "short")
    }
    keys = {"rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.19}
    path = gguf_files.write(tmp_path / "m.gguf", model, extra=extra, keys=keys)
    made = converted(path, tmp_path / "folder")
    assert difference(made, model) < 2e-4  # 117 tokens: the long factors
    short = IDS[:, :20]
    assert torch.allclose(made(short).logits, model(short).logits, atol=2e-4)


@pytest.mark.parametrize(
    ("theta", "width", "factor", "low", "high", "original"),
    [(5e5, 64, 32.0, 1, 4, 8192), (5e5, 128, 8.0, 1, 4, 8192), (1e4, 16, 4.0, 2, 8, 100), (5e5, 8, 32.0, 1, 4, 64),
     (1e4, 128, 34.6, 0.72, 3.98, 8192), (5e5, 8, 4.0, 1, 1.001, 64)],
)  # fmt: skip
def test_factors_are_recovered_exactly(
    theta: float, width: int, factor: float, low: float, high: float, original: int
) -> None:
    asked = {"factor": factor, "low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": original}  # fmt: skip
    factors = [float(np.float32(one)) for one in factors_of(asked, theta, width)]
    found = recover(factors, theta, width)
    assert found is not None
    assert found["rope_type"] == "llama3"
    assert factors_of(found, theta, width) == pytest.approx(factors, rel=2e-5)


def test_llama_3_1_and_3_2_are_recovered_by_name() -> None:
    for factor, width in ((8.0, 128), (32.0, 64)):
        asked = LLAMA3 | {"factor": factor, "original_max_position_embeddings": 8192}
        found = recover(factors_of(asked, 5e5, width), 5e5, width)
        assert found == pytest.approx({k: v for k, v in asked.items() if k != "rope_theta"})


@pytest.mark.parametrize("factors", [[1.0, 2.0, 1.5, 3.0], [1.0, 1.0, 1.0], [1.0, -1.0, 2.0, 4.0]])
def test_other_factors_are_refused(factors: list[float], tmp_path: Path) -> None:
    extra = {"rope_freqs.weight": np.array(factors, dtype=np.float32)}
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"), extra=extra)
    refused(path, UnsupportedModel, "rope_freqs.weight")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "dynamic"),
        ("rope.dimension_count", 4),
        ("rope.scaling.yarn_ext_factor", 0.5),
        ("logit_scale", 0.5),
        ("attention.scale", 0.5),
        ("attention.causal", False),
        ("attention.clamp_kqv", 8.0),
        ("attention.value_length", 16),
        ("attention.head_count_kv", [2, 1, 2]),
        ("residual_scale", 0.25),
        ("final_logit_softcapping", 30.0),
        ("nobody_knows_this", 1),
    ],
)
def test_settings_that_cannot_be_carried_over_are_named(
    key: str, value: Any, tmp_path: Path
) -> None:
    keys = {key: value}
    if "yarn" in key:
        keys |= {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"), keys=keys)
    refused(path, UnsupportedModel, f"llama.{key}")


@pytest.mark.parametrize(
    ("key", "value"),
    [("attention.scale", 8**-0.5), ("logit_scale", 1.0), ("attention.causal", True), ("expert_count", 0),
     ("rope.scaling.finetuned", False), ("attention.head_count_kv", [2, 2, 2])],
)  # fmt: skip
def test_settings_that_do_nothing_are_no_obstacle(key: str, value: Any, tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"), keys={key: value})
    assert read_model(path).config["num_key_value_heads"] == 2


@pytest.mark.parametrize("key", ["attention.head_count", "embedding_length", "block_count"])
def test_settings_that_must_be_there_are_named(key: str, tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"), leave_out=[key])
    refused(path, ModelInvalid, f"llama.{key}")


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("llama", "blk.1.ffn_up.weight"),
        ("llama", "output_norm.weight"),
        ("llama", "token_embd.weight"),
        ("qwen2", "blk.2.attn_k.bias"),
        ("qwen3", "blk.0.attn_q_norm.weight"),
        ("mixtral", "blk.0.ffn_down_exps.weight"),
        ("gemma3_text", "blk.2.post_ffw_norm.weight"),
        ("gpt2", "position_embd.weight"),
    ],
)
def test_missing_tensors_are_named(model_type: str, name: str, tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build(model_type), leave_out=[name])
    refused(path, ModelInvalid, repr(name))


def test_one_bias_of_a_group_wants_the_others(tmp_path: Path) -> None:
    model = tiny.build("llama", attention_bias=True)
    path = gguf_files.write(tmp_path / "m.gguf", model, leave_out=["blk.1.attn_v.bias"])
    refused(path, ModelInvalid, "'blk.1.attn_v.bias'")


@pytest.mark.parametrize(
    "name", ["blk.0.attn_q_norm.weight", "blk.3.attn_q.weight", "cls.weight", "blk.0.ffn_gate_inp.weight"]
)  # fmt: skip
def test_tensors_without_a_place_are_named(name: str, tmp_path: Path) -> None:
    extra = {name: np.ones((32, 32), dtype=np.float32)}
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"), extra=extra)
    refused(path, UnsupportedModel, repr(name))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_every_value_is_the_decoded_one(kind: str, tmp_path: Path) -> None:
    told = GGMLQuantizationType[kind]
    changes = {"intermediate_size": 64, "tie_word_embeddings": True}
    model = tiny.build("qwen2", **changes)
    path = gguf_files.write(tmp_path / "m.gguf", model, kind=told)
    made, truth = converted(path, tmp_path / "folder"), gguf_files.decoded(model, told)
    for name, tensor in truth.state_dict().items():
        assert torch.equal(made.state_dict()[name], tensor), name


def test_the_tokenizer_is_the_file_s(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"))
    write_folder(path, tmp_path / "folder")
    own = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert own("other").input_ids == [own.convert_tokens_to_ids(one) for one in ("o", "th", "er")]


def parts(folder: Path, model: Any) -> list[Path]:
    """Write one model in two parts."""
    names = [folder / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    gguf_files.write(names[0], model, split=(0, 2), leave_out=["blk.2.", "output"])
    gguf_files.write(names[1], model, split=(1, 2), leave_out=["blk.0.", "blk.1.", "token_embd"])
    return names


def test_parts_beside_each_other_are_one_model(tmp_path: Path) -> None:
    model = tiny.build("llama")
    first, _ = parts(tmp_path, model)
    assert difference(converted(first, tmp_path / "folder"), model) < 2e-4
    assert read_model(first).facts.given_bytes == sum(
        p.stat().st_size for p in tmp_path.glob("*.gguf")
    )


def test_parts_that_are_missing_or_of_another_model_are_named(tmp_path: Path) -> None:
    first, second = parts(tmp_path, tiny.build("llama"))
    refused(second, ModelInvalid, first.name)
    renamed = tmp_path / "model.gguf"
    renamed.write_bytes(first.read_bytes())
    refused(renamed, ModelInvalid, "part 0 of 2")
    whole = second.read_bytes()
    second.write_bytes(first.read_bytes())
    refused(first, ModelInvalid, second.name, "does not continue")
    second.unlink()
    refused(first, ModelInvalid, second.name)
    second.write_bytes(whole)
    assert len(read_model(first).parts) == 2


def test_a_part_outside_the_roots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    first, second = parts(tmp_path / "root", tiny.build("llama"))
    second.rename(tmp_path / "outside")
    second.symlink_to(tmp_path / "outside")
    with pytest.raises(PruningError) as caught:
        model_checks.inspect_local(first, [tmp_path / "root"])
    assert caught.value.code == "MODEL_NOT_ALLOWED"


@pytest.mark.parametrize("name", ["m.gguf", "blob", "sha256-0a1b"])
def test_a_link_is_what_it_leads_to(name: str, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    blob = gguf_files.write(tmp_path / "blobs" / "0a1b", tiny.build("llama"))
    (tmp_path / name).symlink_to(blob)
    facts = model_checks.inspect_local(tmp_path / name, [tmp_path])
    assert facts.parameters == sum(one.numel() for one in tiny.build("llama").parameters())
    assert facts.gguf is not None
    assert facts.gguf.type == "F32"


@pytest.mark.parametrize(
    ("sparsity", "code"), [(0.3, None), (0.999, "SIZE_UNREACHABLE"), (0.0001, "SIZE_UNREACHABLE")]
)
def test_a_size_out_of_reach_is_refused_at_submit(
    sparsity: float, code: str | None, tmp_path: Path
) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama", intermediate_size=256))
    assert admitted(path, {"method": "wanda_sp", "sparsity": sparsity}) == code


def test_what_reads_text_needs_the_file_s_tokenizer(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"), tokenizer=False)
    silent = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}}
    assert admitted(path, silent) is None
    assert admitted(path, silent | {"method": "wanda"}) == "MODEL_INVALID"


def admitted(path: Path, prune: dict[str, Any]) -> str | None:
    """Return the code that a job on this file is refused with, or None."""
    model, spec = ModelRef(ref=f"file://{path}"), PruneSpec.model_validate(prune)
    try:
        submission.check(model, spec, roots=[path.parent], tasks_dir=None)
    except PruningError as error:
        return error.code
    return None


def test_the_types_are_the_packages() -> None:
    for number, (name, block, size) in TYPES.items():
        kind = GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, block, size)
        if block > 1:
            assert gguf.dequantize(np.zeros((2, size), dtype=np.uint8), kind).shape == (2, block)


def damaged(path: Path, damage: str) -> Path:
    raw = bytearray(path.read_bytes())
    if damage == "truncated data":
        raw = raw[:-64]
    elif damage == "truncated header":
        raw = raw[:200]
    elif damage == "a long text":
        raw[24:32] = struct.pack("<Q", 1 << 60)
    elif damage == "many keys":
        raw[16:24] = struct.pack("<Q", 1 << 60)
    elif damage == "many tensors":
        raw[8:16] = struct.pack("<Q", 1 << 60)
    elif damage == "no magic":
        raw[:4] = b"GGML"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    "damage", ["truncated data", "truncated header", "a long text", "many keys", "many tensors", "no magic"]
)  # fmt: skip
def test_a_damaged_file_is_refused_at_once(damage: str, tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"))
    refused(damaged(path, damage), ModelInvalid, "m.gguf")


@pytest.mark.parametrize(("place", "value"), [(4, 1), (4, 3 << 24)])
def test_other_versions_are_refused(place: int, value: int, tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", tiny.build("llama"))
    raw = bytearray(path.read_bytes())
    raw[place : place + 4] = struct.pack("<I", value)
    path.write_bytes(raw)
    refused(path, UnsupportedModel, "m.gguf")


def test_an_architecture_without_a_table_is_named_with_those_that_have_one(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "m.gguf", UnsupportedModel, "'mamba'", "qwen3moe")
