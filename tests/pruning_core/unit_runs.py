"""Whole runs that remove units from tiny models, without the fresh process at the end."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from pruning_core.checkpoints.facts import inspect
from pruning_core.evaluate import verify
from pruning_core.pipeline.phases import prune
from pruning_core.spec.patterns import Units
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report
from pruning_core.spec.unit_method import UnitKind
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.layout import Layout, layout_of
from pruning_core.system import subprocesses
from tests import tiny

Tensors = dict[str, torch.Tensor]
Params = dict[str, Any]
KINDS: tuple[UnitKind, ...] = get_args(UnitKind)
METHODS: dict[UnitKind, Params] = {
    "hidden": {"name": "diet"},
    "neurons": {"name": "wanda_sp", "units": ["neurons"]},
    "kv_groups": {"name": "wanda_sp", "units": ["kv_groups"]},
    "layers": {"name": "layer_drop"},
    "vocabulary": {"name": "contextual", "parts": ["embedding"]},
}
SHARED_HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8}
ZERO = {"name": "units", "mode": "zero"}
BATCH = 48
"""Tokens of two windows."""


def save(folder: Path, model_type: str, **changes: Any) -> Path:
    """Save a tiny model whose biases and norms are no constants, with a tokenizer that merges."""
    tiny.save(folder, model_type, **changes)
    tensors = load_file(folder / "model.safetensors")
    vectors = sorted(name for name, tensor in tensors.items() if tensor.ndim == 1)
    for seed, name in enumerate(vectors):
        generator = torch.Generator().manual_seed(seed)
        noise = 0.3 * torch.randn(tensors[name].shape, generator=generator)
        tensors[name] = (tensors[name].float() + noise).to(tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer().save_pretrained(folder)
    return folder


@functools.cache
def tokenizer() -> Any:
    """Return a byte-level tokenizer with a few merges, the only tokens that can go."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=tiny.VOCAB - 5,  # the rest are padding rows
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "The gardener cuts the old wood of the roses in spring, before the first leaves unfold."
    inner.train_from_iterator([text] * 4, trainer)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def tokens() -> torch.Tensor:
    """Return calibration text that some of the merged tokens never occur in."""
    return tiny.tokens(6, 24).clamp_max(280)


def spec(method: Params | str, **changes: Any) -> PruneSpec:
    fields: Params = {"method": method, "evaluation": {"tasks": []}}
    return PruneSpec.model_validate(fields | changes)


def answered(module: str, *arguments: str, **_listeners: Any) -> str:
    """Stand in for the fresh processes of one run: one at the end looks at all results, and the tokenizer is sound."""
    if module != verify.__name__:
        return ""
    probe = Path(arguments[1])
    shutil.copy(probe, probe.parent.parent)
    found = {"loads_in": {}, "max_logit_difference": 0.0, "sample": "", "speed": None}
    return json.dumps(found)


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        source: The dense folder.
        out: The run's.
        report: What it says.
    """

    source: Path
    out: Path
    report: Report

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint"

    @property
    def probe(self) -> Path:
        return self.out / "probe.safetensors"

    @property
    def logits(self) -> torch.Tensor:
        """What the model in memory answered, its units zero, [1, seq, vocabulary]."""
        return load_file(self.probe)["logits"]

    @property
    def config(self) -> Params:
        return read(self.checkpoint / "config.json")

    @property
    def layout(self) -> Layout:
        """Of the source."""
        return layout_of(inspect(self.source))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def finished(
    source: Path, wanted: PruneSpec, out: Path, given: torch.Tensor | None = None
) -> Result:
    """Prune without the fresh process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocesses, "run", answered)
        report = prune(source, wanted, out, tokens=tokens() if given is None else given)
    return Result(source, out, report)


def fewer(source: Path, kinds: tuple[UnitKind, ...], **changes: Any) -> Params:
    """Return the budget of a model with one legal number less of every kind."""
    layout = layout_of(inspect(source))
    cutter = Cutter(layout, Units(**changes))
    sizes = replace(layout.sizes, **{kind: cutter.legal(kind)[-1] for kind in kinds})
    return {"budget": {"parameters": layout.parameters(sizes)}}


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference of a logit, over the largest logit."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def stock(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()
