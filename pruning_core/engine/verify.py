"""Opens a finished checkpoint in a fresh process with stock transformers and compares it with the model in memory.

Run as `python -m pruning_core.engine.verify FOLDER PROBE`, this file is that process: it imports nothing of ours
but names, so that what it does is what any user's machine does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pruning_core.engine import helper
from pruning_core.errors import OutputDoesNotLoad
from pruning_core.spec.report import Verification

PROMPT = "The most important thing about language is"
PROBE_TOKENS = 48
NEW_TOKENS = 24
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
COARSE_TOLERANCE = 2e-2
"""For 16-bit arithmetic: kernels may differ between a batch and a single window."""


def probe_tokens(vocab_size: int, max_positions: int) -> torch.Tensor:
    """Return ids spread over the vocabulary, int64 [1, seq]."""
    count = min(PROBE_TOKENS, max_positions, vocab_size)
    return torch.linspace(0, vocab_size - 1, count).long()[None]


def check(
    folder: Path,
    probe: Path,
    tokens: torch.Tensor,
    logits: torch.Tensor,
    *,
    device: torch.device,
    alive: Callable[[], None] = lambda: None,
) -> Verification:
    """Return what stock transformers makes of the folder.

    Args:
        folder: The checkpoint.
        probe: Where to leave the expectations for the fresh process.
        tokens: int64 [1, seq].
        logits: What the pruned model in memory answers, [1, seq, vocabulary], in the dtype of its arithmetic.
        device: Where to load it.
        alive: Called every few seconds meanwhile.

    Raises:
        OutputDoesNotLoad: it does not load, not generate, or not answer the same.
    """
    save_file({"tokens": tokens.cpu(), "logits": logits.cpu().contiguous()}, probe)
    try:
        answer = helper.run(__name__, str(folder), str(probe), str(device), alive=alive)
    except helper.HelperFailed as error:
        raise OutputDoesNotLoad(f"stock transformers cannot use the result: {error}") from None
    found = json.loads(answer.splitlines()[-1])
    tolerance = TOLERANCE.get(logits.dtype, COARSE_TOLERANCE)
    if not found["max_logit_difference"] <= tolerance:
        raise OutputDoesNotLoad(
            f"reloaded logits differ by {found['max_logit_difference']:.2e} (allowed: {tolerance:.0e})"
        )
    return Verification(**found)


def _examine(folder: str, probe: str, device: str) -> dict[str, Any]:
    import transformers

    expected = load_file(probe)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=expected["logits"].dtype
    )
    model = model.eval().to(device)
    tokens = expected["tokens"].to(device)
    with torch.no_grad():
        logits = model(tokens).logits.cpu()
    scale = expected["logits"].abs().max().clamp_min(1e-30)
    difference = ((logits - expected["logits"]).abs().max() / scale).item()
    return {
        "loads_in": {"transformers": transformers.__version__},
        "max_logit_difference": difference,
        "sample": _sample(transformers, model, folder, tokens),
    }


def _sample(transformers: Any, model: Any, folder: str, tokens: torch.Tensor) -> str:
    """Generate greedily: from a prompt where there is a tokenizer, else from the probe's first ids."""
    has_tokenizer = any(
        (Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json")
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder) if has_tokenizer else None
    inputs = {"input_ids": tokens[:, :4], "attention_mask": torch.ones_like(tokens[:, :4])}
    if tokenizer is not None:
        inputs = {
            key: value.to(tokens.device)
            for key, value in tokenizer(PROMPT, return_tensors="pt").items()
            if key in inputs
        }
    ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)[0]
    text: str = tokenizer.decode(ids, skip_special_tokens=True) if tokenizer else str(ids.tolist())
    return text


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_examine(*sys.argv[1:])) + "\n")
