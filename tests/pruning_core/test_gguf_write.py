"""A checkpoint as GGUF: read back it is the checkpoint, for us and for stock transformers; what cannot be said is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from pruning_core.admission import submission
from pruning_core.convert import to_gguf
from pruning_core.convert.from_gguf import write_folder
from pruning_core.convert.gguf_vocabulary import check_vocabulary
from pruning_core.errors import OutputDoesNotLoad, OutputOverflow, PruningError, UnsupportedModel
from pruning_core.pipeline.phases import prune
from pruning_core.spec.model import ModelRef
from pruning_core.spec.output import GgufType, Output
from pruning_core.spec.prune import PruneSpec
from tests import tiny
from tests.pruning_core.gguf_models import LINEAR, LLAMA3, YARN, difference

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
SIZES = {"intermediate_size": 64}
"""Every row holds whole blocks of Q8_0."""
TEXT = "The other 12 thirds, 3 x 4 = 12!"


def saved(folder: Path, model_type: str = "llama", **changes: Any) -> Path:
    """A checkpoint with zeros, as a mask leaves them."""
    tiny.save(folder, model_type, **(SIZES | changes))
    merging(BYTES).save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "proj.weight" in name:
            tensor[::2, ::3] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def merging(step: Any) -> Any:
    """The byte-level tokenizer with two merges, and with this way to split text."""
    plain = tiny.tokenizer()
    vocab = plain.get_vocab() | {"th": len(plain), "er": len(plain) + 1}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[("t", "h"), ("e", "r")]))
    inner.pre_tokenizer, inner.decoder = step, plain.backend_tokenizer.decoder
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def stock(folder: Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {}),
        ("llama", {"head_dim": 16, "attention_bias": True}),
        ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
        ("llama", {"rope_parameters": YARN}),
        ("qwen2", {"rope_parameters": LINEAR}),
        ("qwen3", {"head_dim": 16}),
        ("mistral", {"sliding_window": None}),
    ],
)
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_it_reads_back_as_the_checkpoint(
    model_type: str, changes: dict[str, Any], kind: GgufType, tmp_path: Path
) -> None:
    source = saved(tmp_path / "source", model_type, **changes)
    path = tmp_path / "m.gguf"
    found = to_gguf.write(source, path, kind, None)
    write_folder(path, tmp_path / "again")
    before, after = (load_file(one / "model.safetensors") for one in (source, tmp_path / "again"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (after[name][tensor == 0] == 0).all(), name
        if tensor.ndim == 1:
            assert torch.equal(after[name], tensor)
        elif kind == "f16":
            assert torch.equal(after[name], tensor.half().float())
    flat, back = (torch.cat([one[name].ravel() for name in before]) for one in (before, after))
    assert found.relative_error == pytest.approx(
        float((flat - back).norm() / flat.norm()), rel=1e-4
    )
    assert found.relative_error < (4e-4 if kind == "f16" else 1e-2)
    # the file's own rounding moves logits; what it says beside the weights must not
    rounded = stock(source)
    rounded.load_state_dict(after, strict=False)
    rounded.tie_weights()
    assert difference(stock(tmp_path / "again"), rounded) < 2e-4


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_stock_transformers_reads_the_same(kind: GgufType, tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    to_gguf.write(source, tmp_path / "m.gguf", kind, None)
    write_folder(tmp_path / "m.gguf", tmp_path / "again")
    theirs = stock(tmp_path, gguf_file="m.gguf")
    assert difference(theirs, stock(tmp_path / "again")) < 2e-4
    tokenizers = [
        AutoTokenizer.from_pretrained(source),
        AutoTokenizer.from_pretrained(tmp_path / "again"),
        AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf"),
    ]
    ids = [one(TEXT).input_ids for one in tokenizers]
    assert ids[0] == ids[1] == ids[2]
    ends = [(one.bos_token_id, one.eos_token_id, one.pad_token_id) for one in tokenizers]
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize(
    ("model_type", "changes", "word"),
    [
        ("gemma2", {}, "gemma2"),
        ("mixtral", {}, "mixtral"),
        ("gpt2", {}, "gpt2"),
        ("mistral", {"sliding_window": 8}, "sliding window"),
        ("llama", {"hidden_act": "gelu"}, "gelu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
    ],
)  # fmt: skip
def test_other_models_are_refused_at_submit(
    model_type: str, changes: dict[str, Any], word: str, tmp_path: Path
) -> None:
    source = tiny.save(tmp_path / "source", model_type, **changes)
    spec = PruneSpec.model_validate(
        {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}, "output": {"format": "gguf"}}
    )  # fmt: skip
    with pytest.raises(UnsupportedModel) as caught:
        submission.check(ModelRef(ref=source.as_uri()), spec, roots=[tmp_path], tasks_dir=None)
    assert word in caught.value.message
    assert caught.value.payload()["pointer"] == "/prune/output/format"


def split(regex: str) -> Any:
    levels = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), levels])


LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (BYTES, "gpt-2"),
        (pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]), "smollm"),
        (split(LLAMA3_SPLIT), "llama-bpe"),
        (split(LLAMA3_SPLIT.replace("{1,3}", "")), "qwen2"),
        (split(r"\w+"), None),
        (pre_tokenizers.ByteLevel(add_prefix_space=True), None),
        (pre_tokenizers.Metaspace(), None),
    ],
)
def test_the_way_text_is_split_is_named_or_refused(
    step: Any, expected: str | None, tmp_path: Path
) -> None:
    source = saved(tmp_path / "source")
    merging(step).save_pretrained(source)
    if expected is None:
        with pytest.raises(UnsupportedModel, match="tokenizer"):
            check_vocabulary(source, None)
        return
    to_gguf.write(source, tmp_path / "m.gguf", "f16", None)
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == expected
    assert len(fields["tokenizer.ggml.tokens"].contents()) == tiny.VOCAB


@pytest.mark.parametrize(("kind", "value"), [("f16", 70_000.0), ("q8_0", 1e7)])
def test_weights_out_of_reach_are_refused(kind: GgufType, value: float, tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = value
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OutputOverflow, match="up_proj"):
        to_gguf.write(source, tmp_path / "m.gguf", kind, None)


def test_a_file_that_reads_otherwise_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path / "source")
    monkeypatch.setattr(to_gguf, "_halved", lambda weight, _config, _change: weight)
    with pytest.raises(OutputDoesNotLoad, match="q_proj"):
        to_gguf.write(source, tmp_path / "m.gguf", "f16", None)


def test_a_type_needs_the_format() -> None:
    assert (Output().gguf, Output(format="gguf").gguf) == (None, "f16")
    assert Output(format="gguf", gguf_type="q8_0").gguf == "q8_0"
    with pytest.raises(ValidationError, match="format: gguf"):
        Output(gguf_type="q8_0")


def test_a_run_leaves_the_file_beside_the_checkpoint(tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    output = {"format": "gguf", "gguf_type": "q8_0", "dtype": "bfloat16"}
    spec = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}, "output": output}
    report = prune(source, PruneSpec.model_validate(spec), tmp_path / "out")
    path = tmp_path / "out" / "checkpoint" / "model-q8_0.gguf"
    listed = {one.path: one for one in report.files}[path.name]
    assert (listed.bytes, listed.media_type) == (path.stat().st_size, "application/octet-stream")
    assert report.gguf is not None
    assert (report.gguf.file, report.gguf.bytes) == (path.name, listed.bytes)
    write_folder(path, tmp_path / "again")
    checkpoint = load_file(path.parent / "model.safetensors")
    again = load_file(tmp_path / "again" / "model.safetensors")
    for name, tensor in checkpoint.items():
        assert np.allclose(again[name], tensor.float(), atol=float(tensor.abs().max()) / 127)
        assert (again[name][tensor == 0] == 0).all()
    assert json.loads((path.parent / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_gguf_cannot_say_is_refused_before_any_work(tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    spec = {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}, "output": {"format": "gguf"}}  # fmt: skip
    with pytest.raises(PruningError, match="tokenizer"):
        prune(source, PruneSpec.model_validate(spec), tmp_path / "out")
    assert not (tmp_path / "out" / "work").exists()
