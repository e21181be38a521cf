"""Prune a model with llmcompressor and print what it cost as a line of JSON, the last one on stdout.

Standalone: it runs in the environment that `bench.peers` makes and imports nothing of the product.
Imports and loading are not timed. Calibration and pruning are, and one plain forward pass of the same tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from transformers import AutoModelForCausalLM, AutoTokenizer

METHODS = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}
SPARSITY = 0.5
WARM_UP = 2  # windows


def seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Return CPU (all threads) and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


@torch.no_grad()
def forward(body: Any, tokens: torch.Tensor) -> None:
    """Run one plain forward pass, a window at a time."""
    for window in tokens.split(1):
        body(input_ids=window, use_cache=False)


def dataset(tokens: torch.Tensor) -> Dataset:
    """Return the tokens as calibration data, which the library does not tokenise again."""
    mask = torch.ones_like(tokens)
    return Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": mask.tolist()})


def prune(method: str, model: Any, tokenizer: Any, data: Dataset) -> None:
    """Prune in place with the library's defaults, on all of the data as it stands."""
    recipe = METHODS[method](
        sparsity=SPARSITY,
        mask_structure="0:0",
        targets=["Linear"],
        ignore=["re:.*lm_head"],  # it looks for "lm_head.", so a plain "lm_head" matches nothing
    )
    oneshot(
        model=model,
        processor=tokenizer,  # else it would be loaded again, and timed
        recipe=recipe,
        dataset=data,
        batch_size=1,
        num_calibration_samples=len(data),
        shuffle_calibration_samples=False,
    )


def zeros(linear: torch.nn.Linear) -> float:
    """Return the fraction of a layer's weights that are zero."""
    return float((linear.weight == 0).float().mean())


def peak_bytes() -> int:
    """Return the peak resident set of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["VmHWM"].split()[0]) * 1024


def measure(method: str, folder: str, tokens: torch.Tensor) -> dict[str, float]:
    """Return the costs, named as in `bench.peers.PeerResult`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    data = dataset(tokens)
    head = zeros(model.lm_head)
    forward(model.model, tokens[:WARM_UP])
    forward_cpu, forward_wall = seconds(lambda: forward(model.model, tokens))
    cpu, wall = seconds(lambda: prune(method, model, tokenizer, data))
    peak = peak_bytes()
    share = zeros(model.model.layers[0].self_attn.q_proj)
    if abs(share - SPARSITY) > 0.001:
        raise SystemExit(f"q_proj of block 0 has {share:.4f} zeros instead of {SPARSITY}")
    if zeros(model.lm_head) != head:
        raise SystemExit("the head was pruned too")
    return {
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "forward_cpu_seconds": forward_cpu,
        "forward_wall_seconds": forward_wall,
        "peak_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("folder", help="the model, as transformers stores it")
    parser.add_argument("tokens", type=Path, help="a .npy file of int64 [samples, seq]")
    options = parser.parse_args()
    tokens = torch.from_numpy(np.load(options.tokens)).long()
    print(json.dumps(measure(options.method, options.folder, tokens)))


if __name__ == "__main__":
    main()
