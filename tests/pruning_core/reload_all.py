"""Loads every listed folder with stock transformers in one fresh process, and notes what it answers.

Run as `python reload_all.py LIST ANSWERS`. LIST is JSON, [[name, folder, probe], ...]; ANSWERS becomes safetensors with
the logits and what was generated, with and without a cache; its metadata has what went wrong, by name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

NEW_TOKENS = 6


def answers(folder: str, probe: str) -> dict[str, torch.Tensor]:
    expected = load_file(probe)
    model: Any
    model, found = AutoModelForCausalLM.from_pretrained(
        folder, dtype=expected["logits"].dtype, output_loading_info=True
    )
    odd = {key: sorted(map(str, value)) for key, value in found.items() if value}
    if odd:
        raise ValueError(f"tensors and configuration disagree: {odd}")
    model.eval()
    tokens = expected["tokens"]
    prompt = tokens[:, : min(12, tokens.shape[1])]  # longer than the sliding windows
    written = {
        name: model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=name == "cached",
            pad_token_id=0,
        )
        for name in ("cached", "uncached")
    }
    return {"logits": model(tokens).logits, **written}


def main(listed: str, target: str) -> None:
    tensors: dict[str, torch.Tensor] = {}
    errors: dict[str, str] = {}
    for name, folder, probe in json.loads(Path(listed).read_text()):
        try:
            with torch.no_grad():
                found = answers(folder, probe)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
            continue
        tensors |= {f"{name}/{key}": tensor.contiguous() for key, tensor in found.items()}
    save_file(tensors, target, metadata=errors)


if __name__ == "__main__":
    main(*sys.argv[1:])
